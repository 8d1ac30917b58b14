package injector

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/template"
)

// goldenCase is a folder of testdata: the pod that goes in, and settings.yaml if
// they are not the defaults.
type goldenCase struct {
	object     []byte // JSON
	pod        PodInfo
	namespace  string
	translator Translator
}

// TestGolden compares what comes out, in files that show it: want.yaml for the
// pod or refusal.txt, and warnings.txt if there are any. To write them again:
//
//	go test ./driver/injector -update
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, directory := range goldenDirectories(t) {
		t.Run(filepath.Base(directory), func(t *testing.T) {
			t.Parallel()
			c := readCase(t, directory)
			got := c.translator.Translate(c.pod, c.namespace)
			compare(t, filepath.Join(directory, "want.yaml"), wantText(t, c, got))
			compare(t, filepath.Join(directory, "refusal.txt"), diagnosticsText(got.Errors))
			compare(t, filepath.Join(directory, "warnings.txt"), diagnosticsText(got.Warnings))
			checkTranslation(t, c, got)
			for _, diagnostic := range slices.Concat(got.Warnings, got.Errors) {
				if diagnostic.String() != diagnostic.Annotation+": "+diagnostic.Text {
					t.Errorf("a diagnostic that does not fit: %s: %s", diagnostic.Annotation, diagnostic.Text)
				}
			}
			if again := readCase(t, directory); !reflect.DeepEqual(again.pod, c.pod) {
				t.Error("the pod was modified")
			}
		})
	}
}

// checkTranslation holds what is true of every translation.
func checkTranslation(t *testing.T, c goldenCase, got Result) {
	t.Helper()
	for _, diagnostic := range slices.Concat(got.Warnings, got.Errors) {
		if len(diagnostic.String()) > maxDiagnostic {
			t.Errorf("a diagnostic of more than %d bytes: %s", maxDiagnostic, diagnostic)
		}
	}
	for _, v := range got.Volumes {
		again, err := volume.Parse(v.Attributes)
		if err != nil || !reflect.DeepEqual(again, v.Spec) {
			t.Errorf("the driver does not take volume %s: %v", v.Name, err)
		}
	}
	if got.Decision != Translate {
		return
	}
	changed, err := DecodePod("Pod", applyPatch(t, c.object, got.Patch))
	if err != nil {
		t.Fatal(err)
	}
	if second := c.translator.Translate(changed, c.namespace); second.Decision != Skip {
		t.Errorf("a second translation decides %s: %v", second.Decision, second.Errors)
	}
}

func goldenDirectories(t testing.TB) []string {
	t.Helper()
	directories, err := filepath.Glob("testdata/*/pod.yaml")
	if err != nil || len(directories) == 0 {
		t.Fatalf("find cases: %v", err)
	}
	for i := range directories {
		directories[i] = filepath.Dir(directories[i])
	}
	return directories
}

func readCase(t testing.TB, directory string) goldenCase {
	t.Helper()
	c := goldenCase{translator: Translator{CheckTemplate: checkTemplate}}
	text, err := os.ReadFile(filepath.Join(directory, "pod.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if c.object, err = yaml.YAMLToJSON(text); err != nil {
		t.Fatal(err)
	}
	if c.pod, err = DecodePod("Pod", c.object); err != nil {
		t.Fatalf("%s: %v", directory, err)
	}
	settings := struct {
		Namespace string
		*Translator
	}{"default", &c.translator}
	path := filepath.Join(directory, "settings.yaml")
	if _, err := os.Stat(path); err == nil {
		readYAML(t, path, &settings)
	}
	c.namespace = settings.Namespace
	return c
}

// checkTemplate is that of the command.
func checkTemplate(file volume.File, text, mountPath string) error {
	return template.Check(template.Template{
		Name: file.Path, Text: text, LeftDelim: file.LeftDelim, RightDelim: file.RightDelim, Pod: template.Pod{MountPath: mountPath},
	})
}

// applyPatch applies a patch with the library of the API server.
func applyPatch(t testing.TB, object []byte, operations []Operation) []byte {
	t.Helper()
	if len(operations) == 0 {
		return object
	}
	text, err := json.Marshal(operations)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := patch.Apply(object)
	if err != nil {
		t.Fatalf("apply %s: %v", text, err)
	}
	return changed
}

func readYAML(t testing.TB, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// wantText is the pod that comes out, with the decision above it.
func wantText(t *testing.T, c goldenCase, got Result) string {
	t.Helper()
	if got.Decision == Reject {
		return ""
	}
	var pod corev1.Pod
	if err := json.Unmarshal(applyPatch(t, c.object, got.Patch), &pod); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := yaml.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(fields, func(key string, _ any) bool { return key == "status" })
	text, err = yaml.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("# %s\n%s", got.Decision, text)
}

func diagnosticsText(diagnostics []Diagnostic) string {
	var lines strings.Builder
	for _, diagnostic := range diagnostics {
		fmt.Fprintln(&lines, diagnostic)
	}
	return lines.String()
}

// compare takes an absent file for an empty one.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
		update(t, path, got)
		return
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func update(t *testing.T, path, text string) {
	t.Helper()
	err := os.Remove(path)
	if text != "" {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the results of the golden tests into testdata")
	flag.Parse()
	os.Exit(m.Run())
}
