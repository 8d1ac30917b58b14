package manifest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/cost"
)

func aliased() map[string]string {
	return map[string]string{
		"a list":                         "a: &a [1, 2]\nb: *a\n",
		"an alias in an anchor":          "a: &a {x: &x [1], y: *x}\nb: *a\n",
		"an anchor that is set anew":     "a: &a 1\nb: *a\nc: &a 2\nd: *a\n",
		"a key":                          "a: &a key\n*a : 1\n",
		"text of many lines in a flow":   "a: &a |\n  one\n  two\nb: {c: *a}\n",
		"a number in quotes":             "a: &a \"1\"\nb: *a\n",
		"a merge":                        "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n",
		"the first of two merges counts": "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b, {z: 3}]}\n",
		"a merge in a merge":             "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n",
		"a merge without an alias":       "a: {<<: {x: 1}, y: 2}\n",
		"a merge of nothing":             "a: {<<: [], y: 2}\n",
		"a merge after other keys":       "a: &a {x: 1}\nb: {y: 2, <<: *a}\n",
		"a key that only looks like one": "a: {\"<<\": {x: 1}, y: 2}\n",
		"a key behind an alias as well":  "a: &a <<\nb: {*a : {x: 1}, y: 2}\n",
		"no value, in a flow":            "a: &a\nb: [*a, {c: }]\nd:\n",
		"comments":                       "a: &a\n  # one\n  x: 1 # two\n# three\nb: *a # four\nc:\n  <<: *a # five\n  # six\n  y: 2\nd:\n- *a # seven\n- [*a] # eight\n",
	}
}

// What is written out means what was written, to the reader that kubectl has.
func TestExpandKeepsTheMeaning(t *testing.T) {
	t.Parallel()
	for name, text := range aliased() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := sigsyaml.YAMLToJSON([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			expanded, err := expandText([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := sigsyaml.YAMLToJSON(expanded); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got  %s, %v\nwant %s\n%s", got, err, want, expanded)
			}
			if strings.Contains(text, "#") && strings.Count(string(expanded), "#") != strings.Count(text, "#") {
				t.Errorf("comments are lost, or there twice:\n%s", expanded)
			}
		})
	}
}

func TestTranslateRefusesAliasesThatCannotBeWrittenOut(t *testing.T) {
	t.Parallel()
	laughs := "kind: Pod\na0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n"
	for i := range 9 {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	tests := map[string]struct{ text, want string }{
		"a billion laughs":    {laughs, "the YAML aliases stand for more than 4 MiB; write out what is meant"},
		"one long text often": {"kind: Pod\na: &a " + strings.Repeat("x", 1<<20) + "\nb: [*a, *a, *a, *a]\n", "the YAML aliases stand for more than 4 MiB; write out what is meant"},
		"an alias of itself":  {"kind: Pod\nspec: &a\n  x: [*a]\n", `the anchor "a" in line 2 holds an alias of itself, in line 3`},
		"an overridden key before its merge": {
			"kind: Pod\nb: &b {name: x}\nspec:\n  name: y\n  <<: *b\n",
			`the key "name" in line 4 stands before the merge key in line 5, which brings it too, and readers of YAML differ in which one counts; put the merge key first`,
		},
		"two merge keys":       {"kind: Pod\nspec:\n  <<: {a: b}\n  <<: {c: d}\n", `the key "<<" stands twice, in lines 3 and 4; remove one of them`},
		"a merge of no keys":   {"kind: Pod\nspec:\n  <<: a\n", "the merge key in line 3 needs a mapping, or a list of them"},
		"a key twice, aliased": {"x: &x {a: b, a: c}\nkind: Pod\nspec: *x\n", `the key "a" stands twice, in lines 1 and 1; remove one of them`},
		"a kind that is an alias": {
			"x: &x Pod\nkind: *x\nspec: &a [*a]\n", `the anchor "a" in line 3 holds an alias of itself, in line 3`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Translate(injector.Translator{}, []byte(test.text))
			if want := "translate document 1: " + test.want; err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

// Readers decode a key that is tagged as binary, where an edit would not find it.
func TestTranslateRefusesAPodThatItCannotEdit(t *testing.T) {
	t.Parallel()
	text := "kind: Pod\nmetadata: {annotations: {vault.hashicorp.com/agent-inject: \"true\", vault.hashicorp.com/role: app, vault.hashicorp.com/agent-inject-secret-a: kv/a}}\n" +
		"spec:\n  containers: [{name: a}]\n  !!binary dm9sdW1lcw==: [{name: data}]\n"
	if _, err := Translate(injector.Translator{}, []byte(text)); err == nil || !strings.Contains(err.Error(), "the pod cannot be edited as it is written") {
		t.Errorf("got %v", err)
	}
}

func expandText(text []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	plain, err := (&expansion{open: map[*yaml.Node]bool{}}).node(&document)
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(plain)
}

// FuzzExpand looks for text that means something else when it is written out, where
// the encoder of YAML alone would not change it.
func FuzzExpand(f *testing.F) {
	for _, text := range aliased() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, err := sigsyaml.YAMLToJSON(text)
		if err != nil {
			return
		}
		var expanded []byte
		cost.Assert(t, len(text), func() { expanded, err = expandText(text) })
		if err != nil {
			return
		}
		got, err := sigsyaml.YAMLToJSON(expanded)
		if err == nil && bytes.Equal(got, want) || !survivesEncoding(text, want) {
			return
		}
		t.Fatalf("got  %s, %v\nwant %s\nof %q", got, err, want, text)
	})
}

func survivesEncoding(text, want []byte) bool {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return false
	}
	written, err := yaml.Marshal(&document)
	if err != nil {
		return false
	}
	got, err := sigsyaml.YAMLToJSON(written)
	return err == nil && bytes.Equal(got, want)
}
