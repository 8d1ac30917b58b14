package manifest

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/annotation"
)

// translation is the work on one manifest.
type translation struct {
	translator annotation.Translator
	result     Result
}

func (t *translation) document(text []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	if len(document.Content) == 0 {
		return text, nil
	}
	before := t.result.Translated
	if err := t.object(document.Content[0]); err != nil {
		return nil, err
	}
	if t.result.Translated == before {
		return text, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), encoder.Close()
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

func (t *translation) pod(node *yaml.Node, object, namespace string) error {
	text, err := yaml.Marshal(node)
	if err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	encoded, err := sigsyaml.YAMLToJSON(text)
	if err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	var pod corev1.Pod
	// As the API server reads it: "Annotations" is not "annotations".
	if err := kjson.UnmarshalCaseSensitivePreserveInts(encoded, &pod); err != nil {
		return fmt.Errorf("read the pod: %w", err)
	}
	translated := t.translator.Translate(&pod, namespace)
	t.note(object, translated)
	if translated.Decision != annotation.Translate {
		return nil
	}
	t.result.Translated++
	return edit(node, &pod, t.translator.Apply(&pod, translated))
}

func (t *translation) note(object string, translated annotation.Translation) {
	for _, notice := range translated.Warnings {
		t.result.Notices = append(t.result.Notices, Notice{Object: object, Notice: notice})
	}
	for _, notice := range translated.Refusals {
		t.result.Notices = append(t.result.Notices, Notice{Object: object, Refused: true, Notice: notice})
	}
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
