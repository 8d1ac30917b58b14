package volume

import (
	"os"
	"strings"
	"testing"
)

// The reference names every attribute that the parser knows.
func TestReferenceIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := volumeKeys()
	for _, verb := range fileVerbs() {
		want = append(want, verb+"/<file>")
	}
	for _, key := range want {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("README.md does not mention %s", key)
		}
	}
	for _, format := range []Format{Map, JSON} {
		template := strings.NewReplacer("\n", `\n`, "|", `\|`).Replace(format.Text("PATH"))
		if !strings.Contains(string(text), "`"+template+"`") {
			t.Errorf("README.md does not hold the built-in template %s", template)
		}
	}
}
