package manifest

import (
	"bytes"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// translation is the work on one manifest.
type translation struct {
	translator injector.Translator
	aliases    *expansion
	result     Result
}

// document returns a part's document as it is translated, or nil if it stays as it is.
func (t *translation) document(p part) ([]byte, error) {
	document, err := decode(p)
	if err != nil {
		return nil, err
	}
	if len(document.Content) == 0 || !mayHoldPod(document.Content[0]) {
		return nil, nil
	}
	plain, err := t.aliases.node(document)
	if err != nil {
		return nil, err
	}
	before := t.result.Translated
	if err := t.object(plain.Content[0]); err != nil {
		return nil, err
	}
	if t.result.Translated == before {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(plain); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), nil
}

// mayHoldPod spares what holds no pod the work on its aliases: they need not even
// make sense there. A kind that comes through an alias may be any.
func mayHoldPod(object *yaml.Node) bool {
	if object.Kind == yaml.AliasNode || mergeKey(object, 0) >= 0 {
		return true
	}
	kind := child(object, "kind")
	if kind == nil {
		return false
	}
	if kind.Value == "List" && kind.Kind == yaml.ScalarNode {
		items := child(object, "items")
		return items != nil && (items.Kind == yaml.AliasNode || slices.ContainsFunc(items.Content, mayHoldPod))
	}
	_, ok := podPath(kind.Value)
	return ok || kind.Kind == yaml.AliasNode
}

// object translates the pod of an object, or those of a List.
func (t *translation) object(object *yaml.Node) error {
	kind := value(object, "kind")
	if kind == "List" {
		items := child(object, "items")
		if items == nil {
			return nil
		}
		for _, item := range items.Content {
			if err := t.object(item); err != nil {
				return err
			}
		}
		return nil
	}
	path, ok := podPath(kind)
	if !ok {
		return nil
	}
	if err := checkTwice(object); err != nil {
		return err
	}
	pod := object
	for _, key := range path {
		if pod = child(pod, key); pod == nil {
			return nil
		}
	}
	metadata := child(object, "metadata")
	name := kind + "/" + value(metadata, "name")
	if err := t.pod(pod, name, value(metadata, "namespace")); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// podPath leads from a workload to its pod, or to the template of its pods.
func podPath(kind string) ([]string, bool) {
	switch kind {
	case "Pod":
		return nil, true
	case "PodTemplate":
		return []string{"template"}, true
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job":
		return []string{"spec", "template"}, true
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template"}, true
	}
	return nil, false
}

// child returns the value of a key, or nil.
func child(node *yaml.Node, key string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

func value(node *yaml.Node, key string) string {
	if found := child(node, key); found != nil {
		return found.Value
	}
	return ""
}
