package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// apply applies a JSON patch to the node of a pod. To write the whole pod again would add
// Go's empty fields and lose comments.
func apply(pod *yaml.Node, patch []injector.Operation) error {
	for _, operation := range patch {
		value, err := toNode(operation.Value)
		if err != nil {
			return fmt.Errorf("write %s: %w", operation.Path, err)
		}
		keys := strings.Split(operation.Path, "/")[1:]
		parent, last := pod, keys[len(keys)-1]
		for _, key := range keys[:len(keys)-1] {
			parent = child(parent, key)
		}
		if !set(parent, last, value) {
			return fmt.Errorf("cannot set %s: its parent is missing; write it out", operation.Path)
		}
	}
	return nil
}

// set replaces the value of a key or an index, or adds it at the end.
func set(parent *yaml.Node, key string, value *yaml.Node) bool {
	switch {
	case parent == nil:
		return false
	case parent.Kind == yaml.MappingNode:
		key = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
		for i := 0; i+1 < len(parent.Content); i += 2 {
			if parent.Content[i].Value == key {
				parent.Content[i+1] = value
				return true
			}
		}
		parent.Content = append(parent.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, value)
		return true
	case parent.Kind == yaml.SequenceNode && key == "-":
		parent.Content = append(parent.Content, value)
		return true
	case parent.Kind == yaml.SequenceNode:
		index, err := strconv.Atoi(key)
		if err != nil || index >= len(parent.Content) {
			return false
		}
		parent.Content[index] = value
		return true
	}
	return false
}

func toNode(value any) (*yaml.Node, error) {
	text, err := sigsyaml.Marshal(value)
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	return document.Content[0], nil
}

// child returns the value of a key or an index, or nil.
func child(node *yaml.Node, key string) *yaml.Node {
	switch {
	case node == nil:
		return nil
	case node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == key {
				return node.Content[i+1]
			}
		}
	case node.Kind == yaml.SequenceNode:
		if index, err := strconv.Atoi(key); err == nil && index < len(node.Content) {
			return node.Content[index]
		}
	}
	return nil
}

// scalar returns the text of a key's value, also behind an alias, or "".
func scalar(node *yaml.Node, key string) string {
	found := child(node, key)
	if found != nil && found.Kind == yaml.AliasNode {
		found = found.Alias
	}
	if found == nil {
		return ""
	}
	return found.Value
}
