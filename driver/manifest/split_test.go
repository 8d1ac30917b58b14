package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

func podNamed(name string) string {
	return `{kind: Pod, metadata: {name: ` + name + `, annotations: {vault.hashicorp.com/agent-inject: "true", vault.hashicorp.com/role: app, vault.hashicorp.com/agent-inject-secret-a: kv/a}}, spec: {containers: [{name: a}]}}`
}

// Each pod of a stream is translated, wherever its document begins and ends, and all
// else comes out as it went in.
func TestTranslateFindsEachDocument(t *testing.T) {
	t.Parallel()
	a, b := podNamed("a"), podNamed("b")
	for _, test := range []struct {
		name, text, want string // %[1]s and %[2]s are the pods as they are translated
	}{
		{"on the lines of the separators", "--- " + a + "\n--- " + b + "\n", "---\n%[1]s\n---\n%[2]s\n"},
		{"behind a tab", "---\t" + a + "\n", "---\n%[1]s\n"},
		{"one untranslated on the line of its separator", "--- {kind:  A}\n--- " + b, "--- {kind:  A}\n---\n%[2]s\n"},
		{"with ends", a + "\n...\n" + b + "\n... # over\n", "%[1]s\n...\n%[2]s\n... # over\n"},
		{"with ends and separators", "---\n" + a + "\n...\n--- # two\n" + b + "\n...", "---\n%[1]s\n...\n--- # two\n%[2]s\n..."},
		{"behind an empty one", "---\n---\n# nothing\n---\n" + b, "---\n---\n# nothing\n---\n%[2]s\n"},
		{"behind a block of text", "a: |\n  ---\n  ...\n--- " + b, "a: |\n  ---\n  ...\n---\n%[2]s\n"},
		{"with directives", "%YAML 1.1\n# c\n--- " + a + "\n...\n%YAML 1.1\n---\n" + b, "%%YAML 1.1\n# c\n---\n%[1]s\n...\n%%YAML 1.1\n---\n%[2]s\n"},
		{"of Windows", "---\r\n" + a + "\r\n---\r\n" + b + "\r\n", "---\r\n%[1]s\r\n---\r\n%[2]s\r\n"},
		{"with byte order marks", "\uFEFF---\n" + a + "\n---\n\uFEFF" + b, "\uFEFF---\n%[1]s\n---\n%[2]s\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Translate(injector.Translator{}, []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(test.want+"%.0[1]s%.0[2]s", translated(t, a), translated(t, b)); string(got.Text) != want {
				t.Errorf("got\n%q\nwant\n%q", got.Text, want)
			}
		})
	}
}

func translated(t *testing.T, pod string) string {
	t.Helper()
	got, err := Translate(injector.Translator{}, []byte(pod))
	if err != nil || got.Translated != 1 {
		t.Fatalf("%d translated, %v", got.Translated, err)
	}
	return strings.TrimSuffix(string(got.Text), "\n")
}

// A reader of YAML sees a document where no line of Unix begins. It must not be lost,
// nor stay untranslated.
func TestTranslateRejectsAHiddenDocument(t *testing.T) {
	t.Parallel()
	for name, lineBreak := range map[string]string{"carriage return": "\r", "next line": "\u0085", "line separator": "\u2028"} {
		_, err := Translate(injector.Translator{}, []byte("a: b"+lineBreak+"--- "+podNamed("a")))
		if want := "translate document 1: another document begins in line 2 of it; write a line --- before it"; err == nil || err.Error() != want {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestManifestLimit(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("#"), limits.ManifestBytes.Max()+1)
	if _, err := Translate(injector.Translator{}, text[1:]); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := Translate(injector.Translator{}, text); err == nil || !strings.Contains(err.Error(), "(manifest-bytes)") {
		t.Errorf("one above the limit: %v", err)
	}
}

// encodings is by how much the limits of cost.Assert are raised: a document is decoded
// into nodes of 200 bytes, and a pod in it is written and read again several times.
const encodings = 8

func TestHostileManifestsCostInProportionToTheirSize(t *testing.T) {
	for name, text := range map[string]string{
		"markers":       strings.Repeat("---\n", 20_000),
		"directives":    strings.Repeat("%YAML 1.1\n", 20_000) + "---\n",
		"pods":          strings.Repeat("--- "+podNamed("a")+"\n", 300),
		"a List":        "kind: List\nitems:\n" + strings.Repeat("- "+podNamed("a")+"\n", 300),
		"keys":          "kind: Pod\nx:\n" + numberedKeys(10_000),
		"quantities":    `{kind: Pod, spec: {containers: [{name: a, resources: {limits: {a: "1e-10000000"}}}]}}`,
		"nested lists":  "kind: Pod\na: " + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000),
		"nested blocks": strings.Replace(podNamed("a"), "secret-a: kv/a", `template-a: "`+strings.Repeat("{{if 1}}", 5000)+`"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			cost.Assert(t, encodings*len(text), func() { _, _ = Translate(injector.Translator{CheckTemplate: checkTemplate}, []byte(text)) })
		})
	}
}

func numberedKeys(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "  k%d: v\n", i)
	}
	return text.String()
}

// FuzzSplit looks for bytes that are lost, and for a document of the stream that no
// part holds.
func FuzzSplit(f *testing.F) {
	for _, text := range []string{"a", "--- a\n...\nb\n", "%YAML 1.1\n---\na", "\uFEFF---\r\na\r\n", "a: |\n ---\n--- b", "a\r---\rb"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var all []byte
		var pieces []part
		cost.Assert(t, len(text), func() { pieces = split(text) })
		for _, part := range pieces {
			all = append(all, part.text()...)
		}
		if !bytes.Equal(all, text) {
			t.Fatalf("%q became %q", text, all)
		}
		if whole, wrong := documents(text); !wrong {
			parts := 0
			for _, part := range split(text) {
				document, err := decode(part)
				if err != nil {
					return // told, and so not lost
				}
				if document != nil && holdsText(document) {
					parts++
				}
			}
			if parts != whole {
				t.Fatalf("%d documents in the parts of %q, want %d", parts, text, whole)
			}
		}
	})
}

// documents counts those of a stream that hold something.
func documents(text []byte) (count int, wrong bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return count, false
		case err != nil:
			return 0, true
		}
		if holdsText(&document) {
			count++
		}
	}
}

func holdsText(document *yaml.Node) bool {
	return len(document.Content) > 0 && (document.Content[0].Kind != yaml.ScalarNode || document.Content[0].Value != "")
}
