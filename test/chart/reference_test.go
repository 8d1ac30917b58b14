package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const (
	tableBegin = "<!-- The table is made from values.yaml by make manifests. -->\n"
	tableEnd   = "<!-- Its end. -->\n"
)

// The chart's README.md holds every value with its default and its comment.
func TestValuesTable(t *testing.T) {
	readme := directory + "/README.md"
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	before, rest, begins := strings.Cut(string(text), tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", readme)
	}
	var table strings.Builder
	table.WriteString("| value | default | |\n|---|---|---|\n")
	for _, leaf := range leaves(t) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", leaf.path, leaf.value, leaf.comment)
	}
	compare(t, readme, before+tableBegin+table.String()+tableEnd+after)
}

// Every value has a comment, and the schema knows it; the schema knows no other.
func TestSchemaKnowsTheValues(t *testing.T) {
	text, err := os.ReadFile(directory + "/values.schema.json")
	require.NoError(t, err)
	var schema schemaNode
	require.NoError(t, json.Unmarshal(text, &schema))
	var got []string
	for _, leaf := range leaves(t) {
		if leaf.comment == "" {
			t.Errorf("%s has no comment", leaf.path)
		}
		got = append(got, leaf.path)
	}
	delete(schema.Properties, "global") // what Helm adds by itself
	for _, path := range schema.paths(t, "") {
		if !slices.ContainsFunc(got, func(leaf string) bool { return leaf == path || strings.HasPrefix(path, leaf+".") }) {
			t.Errorf("the schema knows %s, and values.yaml does not", path)
		}
	}
	for _, leaf := range got {
		if !slices.ContainsFunc(schema.paths(t, ""), func(path string) bool { return leaf == path || strings.HasPrefix(path, leaf+".") }) {
			t.Errorf("values.yaml has %s, and the schema does not", leaf)
		}
	}
}

// The values of testdata named everything are other than the defaults, each of them.
func TestEverythingIsEveryValue(t *testing.T) {
	text, err := os.ReadFile("testdata/values/everything.yaml")
	require.NoError(t, err)
	var set map[string]any
	require.NoError(t, yaml.Unmarshal(text, &set))
	// What something else among the values excludes.
	excluded := []string{"monitoring.serviceMonitor.enabled", "networkPolicy.enabled", "policy.enabled", "vault.ca.configMap", "webhook.hostNetwork"}
	for _, leaf := range leaves(t) {
		var value any = set
		for key := range strings.SplitSeq(leaf.path, ".") {
			section, _ := value.(map[string]any)
			value = section[key]
		}
		if slices.Contains(excluded, leaf.path) {
			continue
		}
		if value == nil || flow(t, value) == leaf.value {
			t.Errorf("%s is %v, as by default", leaf.path, value)
		}
	}
}

// schemaNode is as much of a JSON schema as has to do with names.
type schemaNode struct {
	Properties map[string]schemaNode `json:"properties"`
	Closed     *json.RawMessage      `json:"additionalProperties"`
}

func (n schemaNode) paths(t *testing.T, path string) []string {
	t.Helper()
	if len(n.Properties) == 0 {
		return []string{path}
	}
	if n.Closed == nil || string(*n.Closed) != "false" {
		t.Errorf("the schema takes any key in %s", path)
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(n.Properties)) {
		all = append(all, n.Properties[name].paths(t, strings.TrimPrefix(path+"."+name, "."))...)
	}
	return all
}

// leaf is a value that is no section.
type leaf struct{ path, value, comment string }

// leaves are the values in the order of values.yaml.
func leaves(t *testing.T) []leaf {
	t.Helper()
	text, err := os.ReadFile(directory + "/values.yaml")
	require.NoError(t, err)
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &document))
	return collect(t, document.Content[0], "")
}

// collect treats as sections the mappings that are written as blocks.
func collect(t *testing.T, mapping *yaml.Node, path string) []leaf {
	t.Helper()
	var all []leaf
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		full := strings.TrimPrefix(path+"."+key.Value, ".")
		comment := strings.TrimSpace(strings.ReplaceAll(strings.TrimPrefix(key.HeadComment, "#"), "\n#", ""))
		if value.Kind == yaml.MappingNode && value.Style != yaml.FlowStyle && comment == "" || isSection(value) {
			all = append(all, collect(t, value, full)...)
			continue
		}
		var decoded any
		require.NoError(t, value.Decode(&decoded))
		all = append(all, leaf{full, flow(t, decoded), comment})
	}
	return all
}

// isSection finds a mapping whose own keys have comments.
func isSection(value *yaml.Node) bool {
	return value.Kind == yaml.MappingNode && slices.ContainsFunc(value.Content, func(node *yaml.Node) bool { return node.HeadComment != "" })
}

// flow writes a value in one line.
func flow(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}
