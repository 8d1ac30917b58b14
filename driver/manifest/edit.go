package manifest

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	sigsyaml "sigs.k8s.io/yaml"
)

// edit brings a pod's node from one state to another: volumes, mounts, the
// shared process namespace and annotations are all that a translation adds. To
// write the whole pod anew would add Go's empty fields and lose comments.
func edit(node *yaml.Node, before, after *corev1.Pod) error {
	for _, key := range slices.Sorted(maps.Keys(after.Annotations)) {
		if after.Annotations[key] != before.Annotations[key] {
			annotations := child(child(node, "metadata"), "annotations")
			if err := set(annotations, key, &yaml.Node{Kind: yaml.ScalarNode, Value: after.Annotations[key]}); err != nil {
				return err
			}
		}
	}
	spec := child(node, "spec")
	if after.Spec.ShareProcessNamespace != nil && before.Spec.ShareProcessNamespace == nil {
		shared := &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(*after.Spec.ShareProcessNamespace)}
		if err := set(spec, "shareProcessNamespace", shared); err != nil {
			return err
		}
	}
	if err := editList(spec, "volumes", before.Spec.Volumes, after.Spec.Volumes); err != nil {
		return err
	}
	if err := editContainers(child(spec, "initContainers"), before.Spec.InitContainers, after.Spec.InitContainers); err != nil {
		return err
	}
	return editContainers(child(spec, "containers"), before.Spec.Containers, after.Spec.Containers)
}

func editContainers(list *yaml.Node, before, after []corev1.Container) error {
	if len(before) > 0 && (list == nil || len(list.Content) != len(before)) {
		return errors.New("the containers are not where they are read; write their key out, without a tag")
	}
	for i := range before {
		if err := editList(list.Content[i], "volumeMounts", before[i].VolumeMounts, after[i].VolumeMounts); err != nil {
			return err
		}
	}
	return nil
}

// editList replaces the items of a list that differ and appends the new ones.
func editList[T any](mapping *yaml.Node, key string, before, after []T) error {
	list := child(mapping, key)
	for i, item := range after {
		if i < len(before) && reflect.DeepEqual(before[i], item) {
			continue
		}
		node, err := toNode(item)
		if err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
		if list == nil || list.Kind != yaml.SequenceNode {
			list = &yaml.Node{Kind: yaml.SequenceNode}
			if err := set(mapping, key, list); err != nil {
				return err
			}
		}
		if i < len(before) {
			list.Content[i] = node
			continue
		}
		list.Content = append(list.Content, node)
	}
	return nil
}

func toNode(typed any) (*yaml.Node, error) {
	text, err := sigsyaml.Marshal(typed)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	return document.Content[0], nil
}

// set puts a value where a key of a mapping is, or at its end.
func set(mapping *yaml.Node, key string, value *yaml.Node) error {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return fmt.Errorf("%s cannot be set: what should hold it is missing; write it out", key)
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content[i+1] = value
			return nil
		}
	}
	mapping.Content = append(mapping.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
	return nil
}
