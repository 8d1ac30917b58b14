package manifest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/template"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

// Each input has an output beside it, and its diagnostics at the output's end.
func TestTranslate(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no input: %v", err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			result, err := Translate(injector.Translator{CheckTemplate: checkTemplate}, text)
			if err != nil {
				t.Fatal(err)
			}
			got := string(result.Text)
			for _, diagnostic := range result.Diagnostics {
				got += "# " + diagnostic.String() + "\n"
			}
			path := strings.TrimSuffix(input, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs (go test -update writes it):\n%s", path, got)
			}
			again, err := Translate(injector.Translator{CheckTemplate: checkTemplate}, result.Text)
			if err != nil || again.Translated != 0 || !bytes.Equal(again.Text, result.Text) {
				t.Errorf("a second translation changes the first: %v\n%s", err, again.Text)
			}
		})
	}
}

// checkTemplate is that of the command.
func checkTemplate(file volume.File, text, mountPath string) error {
	return template.Check(template.Template{
		Name: file.Path, Text: text, LeftDelim: file.LeftDelim, RightDelim: file.RightDelim, Pod: template.Pod{MountPath: mountPath},
	})
}

func TestDocumentsWithoutAPodAreUnchanged(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            "",
		"a comment":        "# nothing\n",
		"odd white space":  "kind:   ConfigMap\ndata: {a:   b}   # c\n\n",
		"a block of text":  "kind: ConfigMap\ndata:\n  a: |\n    ---\n    x\n---\n\n---\nkind: Service\n",
		"a pod that skips": "kind: Pod\nmetadata:\n    name:  x\nspec: {containers: [ {name: a} ]}\n",
		"null annotations": "kind: Deployment\nspec:\n   template:\n      metadata:\n         annotations:\n      spec: {}\n",
		"separators":       "---\n--- # one\nkind: Service\n---",
		"a scalar":         "hello\n",
		"a List of none":   "kind: List\n",
		"aliases":          "kind: ConfigMap\ndata: &d {a:   b}\nbinaryData: {x: &y [*y], c: d, <<: *d}\n",
		"markers":          "%YAML 1.1\n# c\n--- # one\nkind: Service\n... # two\nkind:  A\n...\n--- {kind:  B}\n---\t|\n x\n--- >\n---\n",
		"of Windows":       "\uFEFF---\r\nkind:  Service\r\n...\r\n\r\n--- {kind:  A}\r\n",
		"a pod of aliases": "kind: Pod\nmetadata: {labels: &l {a:   b}}\nspec: {nodeSelector: *l, <<: {containers: [ ]}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			result, err := Translate(injector.Translator{CheckTemplate: checkTemplate}, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if string(result.Text) != text {
				t.Errorf("got %q, want %q", result.Text, text)
			}
		})
	}
}

func TestTranslateRejectsWhatIsNoManifest(t *testing.T) {
	for name, text := range map[string]string{
		"no YAML":         "kind: [\n",
		"a pod of a list": "kind: Pod\nspec: {containers: 7}\n",
		"no spec":         "kind: Pod\nmetadata: {annotations: {vault.hashicorp.com/agent-inject: \"true\", vault.hashicorp.com/role: app, vault.hashicorp.com/agent-inject-secret-a: kv/a}}\n",
		"odd annotations": "kind: Pod\nmetadata: {annotations: [a]}\n",
	} {
		if _, err := Translate(injector.Translator{CheckTemplate: checkTemplate}, []byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Readers take the last of two equal keys; an edit would be of the first.
func TestTranslateRejectsADuplicateKey(t *testing.T) {
	t.Parallel()
	const ours, spec = "{annotations: {vault.hashicorp.com/agent-inject: \"true\", vault.hashicorp.com/role: app}}", "{containers: []}"
	tests := map[string]struct{ text, want string }{
		"the annotations": {
			"kind: Pod\nmetadata:\n  annotations: {}\n  annotations:\n    vault.hashicorp.com/agent-inject: \"true\"\n",
			`translate document 1: the key "annotations" is there twice, in lines 3 and 4; remove one of them`,
		},
		"an annotation": {
			"kind: Pod\nmetadata:\n  annotations:\n    a: b\n    c: d\n    a: e\n", `translate document 1: the key "a" is there twice, in lines 4 and 6; remove one of them`,
		},
		"the template": {
			"kind: Deployment\nspec:\n  template: {}\n  template: {metadata: " + ours + ", spec: " + spec + "}\n",
			`translate document 1: the key "template" is there twice, in lines 3 and 4; remove one of them`,
		},
		"one quoted":      {"kind: Pod\nspec: {}\n\"spec\": {}\n", `translate document 1: the key "spec" is there twice, in lines 2 and 3; remove one of them`},
		"in another kind": {"kind: ConfigMap\ndata: {}\ndata: {}\n", ""}, // is not read
		"in two mappings": {"kind: Pod\nmetadata: {name: a}\nspec: {name: a}\n", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Translate(injector.Translator{CheckTemplate: checkTemplate}, []byte(test.text))
			if got := fmt.Sprint(err); test.want == "" && err != nil || test.want != "" && got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func FuzzTranslate(f *testing.F) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, input := range inputs {
		text, err := os.ReadFile(input)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var result Result
		var err error
		cost.Assert(t, encodings*len(text), func() {
			result, err = Translate(injector.Translator{CheckTemplate: checkTemplate}, text)
		})
		if err != nil {
			return
		}
		if result.Translated == 0 && !bytes.Equal(result.Text, text) {
			t.Fatalf("nothing was translated, and %q became %q", text, result.Text)
		}
		again, err := Translate(injector.Translator{CheckTemplate: checkTemplate}, result.Text)
		if err != nil {
			t.Fatalf("read what was written: %v\n%s", err, result.Text)
		}
		if again.Translated != 0 {
			t.Fatalf("a second translation changes the first:\n%s", result.Text)
		}
	})
}

// The commonest mistake: a controller does not copy its own annotations to its pods.
func TestTranslateWarnsOfAnnotationsOnAWorkload(t *testing.T) {
	t.Parallel()
	const text = "kind: Deployment\nmetadata: {name: web, annotations: {vault.hashicorp.com/agent-inject: \"true\"}}\nspec: {template: {spec: {containers: [{name: a}]}}}\n"
	got, err := Translate(injector.Translator{}, []byte(text))
	want := "warning: Deployment/web: metadata.annotations: the annotations of a Deployment have no effect; move them to the metadata of its pod template"
	if err != nil || len(got.Diagnostics) != 1 || got.Diagnostics[0].String() != want || string(got.Text) != text {
		t.Errorf("got %v, %v", got.Diagnostics, err)
	}
	off := strings.Replace(text, `"true"`, `"false"`, 1)
	if got, err := Translate(injector.Translator{}, []byte(off)); err != nil || len(got.Diagnostics) != 0 {
		t.Errorf("a switch that is off: %v, %v", got.Diagnostics, err)
	}
}
