package webhook

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
)

var update = flag.Bool("update", false, "write the results of the golden tests into testdata")

// goldenCase is a folder of testdata: the object under review, and settings.yaml
// if request or settings are not the usual ones.
type goldenCase struct {
	object    []byte
	namespace string
	operation admissionv1.Operation
	injector.Translator
}

// TestGolden compares the answers with files that show them: patch.yaml,
// refusal.txt, warnings.txt, and the line for logs and metrics in outcome.txt. To
// write them anew:
//
//	go test ./driver/webhook -update
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, directory := range directories(t, "testdata/*/object.yaml") {
		t.Run(filepath.Base(directory), func(t *testing.T) {
			t.Parallel()
			c := readCase(t, filepath.Join(directory, "object.yaml"))
			got := Reviewer{c.Translator}.Review(c.request(t))
			checkOutcome(t, got)
			compare(t, filepath.Join(directory, "outcome.txt"), string(got.Result)+" "+got.Object.String()+"\n")
			compare(t, filepath.Join(directory, "patch.yaml"), patchText(t, got.Response.Patch))
			compare(t, filepath.Join(directory, "refusal.txt"), refusalText(got.Response))
			compare(t, filepath.Join(directory, "warnings.txt"), lines(got.Response.Warnings))
		})
	}
}

// checkOutcome holds what is true of every answer.
func checkOutcome(t *testing.T, got Outcome) {
	t.Helper()
	if got.Response.UID != "a-uid" {
		t.Errorf("the answer is to %q", got.Response.UID)
	}
	if got.Kind != "Pod" && (!got.Response.Allowed || got.Response.Patch != nil) {
		t.Errorf("a %s is denied or changed", got.Kind)
	}
	if !got.Response.Allowed && (got.Response.Patch != nil || got.Response.Result.Message == "") {
		t.Errorf("a denial with a patch or without a reason: %+v", got.Response)
	}
	total := 0
	for _, warning := range got.Response.Warnings {
		total += len(warning)
		if len(warning) > maxWarning || strings.ContainsAny(warning, "\r\n") {
			t.Errorf("a warning of %d bytes: %q", len(warning), warning)
		}
	}
	if total > maxWarnings {
		t.Errorf("warnings of %d bytes", total)
	}
}

func directories(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("find cases: %v", err)
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}

func readCase(t testing.TB, path string) goldenCase {
	t.Helper()
	c := goldenCase{namespace: "default", operation: admissionv1.Create}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.object, err = yaml.YAMLToJSON(text); err != nil {
		t.Fatal(err)
	}
	settings := struct {
		Namespace *string
		Operation *admissionv1.Operation
		*injector.Translator
	}{&c.namespace, &c.operation, &c.Translator}
	text, err = os.ReadFile(filepath.Join(filepath.Dir(path), "settings.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return c
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &settings); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return c
}

func (c goldenCase) request(t testing.TB) *admissionv1.AdmissionRequest {
	t.Helper()
	var object metav1.PartialObjectMetadata
	if err := json.Unmarshal(c.object, &object); err != nil {
		t.Fatal(err)
	}
	return &admissionv1.AdmissionRequest{
		UID:       "a-uid",
		Kind:      metav1.GroupVersionKind{Kind: object.Kind},
		Namespace: c.namespace,
		Name:      object.Name,
		Operation: c.operation,
		Object:    runtime.RawExtension{Raw: c.object},
	}
}

// patchText is YAML, which shows a template line by line.
func patchText(t *testing.T, patch []byte) string {
	t.Helper()
	if patch == nil {
		return ""
	}
	text, err := yaml.JSONToYAML(patch)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func refusalText(response *admissionv1.AdmissionResponse) string {
	if response.Allowed {
		return ""
	}
	return response.Result.Message + "\n"
}

func lines(texts []string) string {
	var all strings.Builder
	for _, text := range texts {
		all.WriteString(text + "\n")
	}
	return all.String()
}

// compare takes an absent file for an empty one.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		err := os.Remove(path)
		if got != "" {
			err = os.WriteFile(path, []byte(got), 0o644)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
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
