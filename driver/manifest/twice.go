package manifest

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// checkTwice refuses a key that stands twice in a mapping. YAML forbids it, and
// whoever reads it all the same takes the last one, where an edit finds the first.
func checkTwice(node *yaml.Node) error {
	if node.Kind == yaml.MappingNode {
		lines := map[string]int{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if key.Kind != yaml.ScalarNode {
				continue
			}
			if before, found := lines[key.Value]; found {
				return twice(key.Value, before, key.Line)
			}
			lines[key.Value] = key.Line
		}
	}
	for _, below := range node.Content {
		if err := checkTwice(below); err != nil {
			return err
		}
	}
	return nil
}

func twice(key string, first, second int) error {
	return fmt.Errorf("the key %q stands twice, in lines %d and %d; remove one of them", key, first, second)
}
