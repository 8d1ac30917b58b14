package manifest

import (
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

// mapping copies a mapping, with the keys that a merge key brings in its place.
func (e *expansion) mapping(from, to *yaml.Node) error {
	for _, below := range from.Content {
		expanded, err := e.node(below)
		if err != nil {
			return err
		}
		to.Content = append(to.Content, expanded)
	}
	at := mergeKey(to, 0)
	if at < 0 {
		return nil
	}
	if again := mergeKey(to, at+2); again >= 0 {
		return twice("<<", to.Content[at].Line, to.Content[again].Line)
	}
	merged, err := bring(to, at)
	if err != nil {
		return err
	}
	to.Content = slices.Concat(to.Content[:at], merged, to.Content[at+2:])
	return nil
}

// mergeKey returns where the first merge key from a place on is, or -1.
func mergeKey(mapping *yaml.Node, from int) int {
	for i := from; i+1 < len(mapping.Content); i += 2 {
		if isMerge(mapping.Content[i]) {
			return i
		}
	}
	return -1
}

func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.Value == "<<" && key.ShortTag() == "!!merge"
}

// bring returns the keys and values that the merge key at a place brings: those that
// neither the mapping nor an earlier source has.
func bring(mapping *yaml.Node, at int) ([]*yaml.Node, error) {
	key, value := mapping.Content[at], mapping.Content[at+1]
	sources, err := mergeSources(value)
	if err != nil {
		return nil, err
	}
	before, taken := keyLines(mapping.Content[:at]), keyLines(mapping.Content)
	var merged []*yaml.Node
	for _, source := range sources {
		for i := 0; i+1 < len(source.Content); i += 2 {
			name := source.Content[i]
			if line, found := before[name.Value]; found {
				return nil, fmt.Errorf("the key %q in line %d stands before the merge key in line %d, which brings it too, and readers of YAML differ in which one counts; put the merge key first", name.Value, line, key.Line)
			}
			if _, found := taken[name.Value]; !found {
				merged = append(merged, name, source.Content[i+1])
			}
		}
		maps.Copy(taken, keyLines(source.Content))
	}
	if len(merged) > 0 {
		keepMergeComments(key, value, merged[0])
	}
	return merged, nil
}

func mergeSources(value *yaml.Node) ([]*yaml.Node, error) {
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	for _, source := range sources {
		if source.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("the merge key in line %d needs a mapping, or a list of them", value.Line)
		}
	}
	return sources, nil
}

// keyLines are the scalar keys among keys and values, each with its line.
func keyLines(content []*yaml.Node) map[string]int {
	found := map[string]int{}
	for i := 0; i+1 < len(content); i += 2 {
		if content[i].Kind == yaml.ScalarNode {
			found[content[i].Value] = content[i].Line
		}
	}
	return found
}

// keepMergeComments puts what stands beside a merge key before the first key that
// it brings.
func keepMergeComments(key, value, first *yaml.Node) {
	first.HeadComment = lines(lines(key.HeadComment, key.LineComment), lines(lines(value.HeadComment, value.LineComment), first.HeadComment))
}
