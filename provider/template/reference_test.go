package template

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// README.md lists every function, in the row of what becomes of it.
func TestReferenceListsTheFunctions(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	requireRow(t, content, "text/template", builtinFunctions())
	requireRow(t, content, "consul-template", offeredFunctions())
	requireRow(t, content, "sprig, as `sprig_NAME`", sprigFunctions())
	bounded := []string{"loop"}
	requireRow(t, content, "bounded to 1048576 rounds", bounded)
	requireRow(t, content, "as above", slices.DeleteFunc(emulatedFunctions(), func(name string) bool { return slices.Contains(bounded, name) }))
	for _, group := range refusals() {
		row := "\n| `" + strings.Join(strings.Fields(group.functions), "` `") + "` | " + group.why + " |\n"
		if !strings.Contains(string(content), row) {
			t.Errorf("README.md lacks the row%s", row)
		}
	}
}

func requireRow(t *testing.T, content []byte, title string, functions []string) {
	t.Helper()
	row := "\n| " + title + " | `" + strings.Join(functions, "` `") + "` |\n"
	if !strings.Contains(string(content), row) {
		t.Errorf("README.md lacks the row%s", row)
	}
}
