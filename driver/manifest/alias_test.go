package manifest

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/cost"
)

// Each document of the file but the last asks for secrets, with aliases or merge keys in
// one of the places where an edit would change another pod.
func TestTranslateRejectsAliases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/aliases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.SplitAfter(string(text), "---\n")
	for i, document := range documents {
		got, err := Translate(injector.Translator{}, []byte(document))
		if i == len(documents)-1 {
			if err != nil || string(got.Text) != document {
				t.Errorf("the document that does not ask: %v\n%s", err, got.Text)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "has a YAML alias or merge key") || !strings.Contains(err.Error(), "yq 'explode(.)'") {
			t.Errorf("document %d: %v", i, err)
		}
	}
}

func TestTranslateRejectsAliasesWhereverTheyAre(t *testing.T) {
	t.Parallel()
	const ask = `{annotations: {vault.hashicorp.com/agent-inject: "true", vault.hashicorp.com/role: app, vault.hashicorp.com/agent-inject-secret-a: kv/a}}`
	tests := map[string]struct {
		text     string
		rejected bool
	}{
		"a kind":                   {"x: &x Pod\nkind: *x\nmetadata: " + ask + "\n", true},
		"the whole pod":            {"x: &x {kind: Pod, metadata: " + ask + "}\n<<: *x\n", true},
		"a merge without an alias": {"kind: Pod\nmetadata: " + ask + "\nspec: {<<: {containers: []}}\n", true},
		"the switch":               {"x: &x \"true\"\nkind: Pod\nmetadata: {annotations: {vault.hashicorp.com/agent-inject: *x}}\n", true},
		"an item of a List":        {"kind: List\nitems:\n- &x {kind: Pod, metadata: " + ask + "}\n- *x\n", true},
		"an alias of itself":       {"kind: Pod\nmetadata: " + ask + "\nspec: &a\n  x: [*a]\n", true},
		"a switch that is off":     {"kind: Pod\nmetadata: {annotations: {vault.hashicorp.com/agent-inject: \"false\", a: &a b, c: *a}}\n", false},
		"a kind without pods":      {"kind: ConfigMap\nmetadata: " + ask + "\ndata: &d {a: b}\nbinaryData: *d\n", false},
		"a key in quotes":          {"kind: Pod\n\"<<\": {a: b}\n", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Translate(injector.Translator{}, []byte(test.text))
			if test.rejected && (err == nil || !strings.Contains(err.Error(), "cannot be edited; expand them first")) {
				t.Errorf("got %v", err)
			}
			if !test.rejected && (err != nil || string(got.Text) != test.text) {
				t.Errorf("got %q, %v", got.Text, err)
			}
		})
	}
}

// Ten lines of aliases can stand for gigabytes. Nothing expands them.
func TestAliasesCostInProportionToTheirText(t *testing.T) {
	laughs := "kind: Pod\na0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n"
	for i := range 9 {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	chain := "kind: Pod\na0: &a0 []\n"
	for i := range 700 {
		chain += fmt.Sprintf("a%d: &a%d [*a%d]\n", i+1, i+1, i)
	}
	for name, text := range map[string]string{"a billion laughs": laughs, "chains": strings.Repeat(chain+"---\n", 50)} {
		cost.Assert(t, encodings*len(text), func() {
			if got, err := Translate(injector.Translator{}, []byte(text)); err != nil || !bytes.Equal(got.Text, []byte(text)) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// Parsers decode such a key, where an edit would not find it.
func TestTranslateRejectsKeysInBase64(t *testing.T) {
	t.Parallel()
	text := strings.Replace(podNamed("a"), "containers:", "!!binary Y29udGFpbmVycw==:", 1)
	_, err := Translate(injector.Translator{}, []byte(text))
	if want := `translate document 1: the key "Y29udGFpbmVycw==" in line 1 is in base64; write it as text`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
