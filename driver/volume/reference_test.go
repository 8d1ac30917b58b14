package volume

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// The tables of README.md have one row for each attribute, and its value begins with the text
// of the vocabulary.
func TestReference(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, row := range new(Spec).attributes() {
		want[row.key] = row.text
	}
	for _, row := range new(File).attributes() {
		want[row.key+"/<file>"] = row.text
	}
	got := map[string]bool{}
	inTable := false
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) < 3 || strings.HasPrefix(line, "| attribute") {
			inTable = strings.HasPrefix(line, "| attribute | value | default |") || inTable && strings.HasPrefix(line, "|---")
			continue
		}
		if !inTable {
			continue
		}
		key := strings.Trim(cells[0], "| `")
		value, ok := want[key]
		value, _, _ = strings.Cut(value, ";")
		if !ok || got[key] || !strings.HasPrefix(cells[1], value) {
			t.Errorf("the row of %q says %q, want %q once", key, cells[1], value)
		}
		got[key] = true
	}
	for key := range want {
		if !got[key] {
			t.Errorf("README.md has no row of %s; it has %q", key, slices.Sorted(maps.Keys(got)))
		}
	}
	for _, format := range []Format{Map, JSON} {
		template := strings.NewReplacer("\n", `\n`, "|", `\|`).Replace(format.Text("PATH"))
		if !strings.Contains(string(text), "`"+template+"`") {
			t.Errorf("README.md does not have the built-in template %s", template)
		}
	}
}
