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

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/template"
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
// rewrite them:
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

// For every golden pod of package injector, what the API server makes of the patch is the
// pod of the golden case, but for the repeated warnings. The library that applies the
// patch is the API server's.
func TestPatchLeadsToTheTranslatedPod(t *testing.T) {
	t.Parallel()
	translated := 0
	for _, directory := range directories(t, "../injector/testdata/*/pod.yaml") {
		t.Run(filepath.Base(directory), func(t *testing.T) {
			c := readCase(t, filepath.Join(directory, "pod.yaml"))
			if needsTemplateCheck(t, c) {
				return
			}
			got := Reviewer{c.Translator}.Review(c.request(t))
			checkOutcome(t, got)
			text, err := os.ReadFile(filepath.Join(directory, "want.yaml"))
			if rejected := errors.Is(err, fs.ErrNotExist); got.Response.Allowed == rejected {
				t.Fatalf("allowed=%t, want %t", got.Response.Allowed, !rejected)
			} else if rejected {
				return
			}
			if strings.HasPrefix(string(text), "# "+string(injector.Translate)) {
				translated++
			} else if got.Response.Patch != nil {
				t.Fatalf("the pod is changed: %s", got.Response.Patch)
			}
			var want corev1.Pod
			if err := yaml.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			patched := applyPatch(t, c.object, got.Response.Patch)
			requireWarningsRepeated(t, got, patched)
			delete(patched.Annotations, WarningsAnnotation)
			patched.Status = corev1.PodStatus{}
			if !equality.Semantic.DeepEqual(patched, &want) {
				t.Errorf("the patch leads to\n%+v\nwant\n%+v", patched, want)
			}
		})
	}
	if translated < 60 {
		t.Errorf("only %d pods were translated", translated)
	}
}

// needsTemplateCheck is true for a golden case whose outcome depends on the check of
// templates, which the webhook leaves to the driver.
func needsTemplateCheck(t *testing.T, c goldenCase) bool {
	t.Helper()
	pod, err := injector.DecodePod("Pod", c.object)
	if err != nil {
		t.Fatal(err)
	}
	checked := c.Translator
	rejects := false
	checked.CheckTemplate = func(file volume.File, text, mountPath string) error {
		err := template.Check(template.Template{
			Name: file.Path, Text: text, LeftDelim: file.LeftDelim, RightDelim: file.RightDelim, Pod: template.Pod{MountPath: mountPath},
		})
		rejects = rejects || err != nil
		return err
	}
	checked.Translate(pod, c.namespace)
	return rejects
}

func requireWarningsRepeated(t *testing.T, got Outcome, patched *corev1.Pod) {
	t.Helper()
	want := ""
	if got.Result == Warned {
		want = lines(got.Response.Warnings)
		want = want[:len(want)-1]
	}
	if repeated := patched.Annotations[WarningsAnnotation]; repeated != want {
		t.Errorf("the pod repeats %q, want %q", repeated, want)
	}
}

func applyPatch(t testing.TB, object, patch []byte) *corev1.Pod {
	t.Helper()
	if patch != nil {
		decoded, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			t.Fatal(err)
		}
		if object, err = decoded.Apply(object); err != nil {
			t.Fatal(err)
		}
	}
	var pod corev1.Pod
	if err := json.Unmarshal(object, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

// An API server newer than this program sends fields that it does not know.
func TestPatchKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	c := readCase(t, "testdata/tutorial-payroll/object.yaml")
	object, err := jsonpatch.MergePatch(c.object, []byte(`{"spec":{"unheardOf":1,"volumes":null}}`))
	if err != nil {
		t.Fatal(err)
	}
	c.object = object
	got := Reviewer{}.Review(c.request(t))
	decoded, err := jsonpatch.DecodePatch(got.Response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := decoded.Apply(object)
	if err != nil {
		t.Fatal(err)
	}
	var pod struct {
		Spec struct{ UnheardOf int }
	}
	if err := json.Unmarshal(patched, &pod); err != nil || pod.Spec.UnheardOf != 1 {
		t.Errorf("the pod became %s, %v", patched, err)
	}
}

// The second look at a pod, after another webhook has changed it.
func TestSecondReviewChangesNothing(t *testing.T) {
	t.Parallel()
	for _, directory := range directories(t, "testdata/*/patch.yaml") {
		c := readCase(t, filepath.Join(directory, "object.yaml"))
		first := Reviewer{c.Translator}.Review(c.request(t))
		text, err := json.Marshal(applyPatch(t, c.object, first.Response.Patch))
		if err != nil {
			t.Fatal(err)
		}
		c.object = text
		second := Reviewer{c.Translator}.Review(c.request(t))
		if second.Result != Skipped || second.Response.Patch != nil || !second.Response.Allowed || len(second.Response.Warnings) > 0 {
			t.Errorf("%s: the second review is %+v", directory, second)
		}
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", maxWarning)
	repeat := func(n int) []string {
		var all []string
		for range n {
			all = append(all, line)
		}
		return all
	}
	tests := map[string]struct {
		lines, more, want int
		last              string
	}{
		"none":                       {0, 0, 0, ""},
		"all that fit":               {16, 0, 16, line},
		"one too many":               {17, 0, 16, "and 2 more; "},
		"many":                       {100, 0, 16, "and 85 more; "},
		"few, and more left out":     {3, 7, 4, "and 7 more; "},
		"too many, and more besides": {20, 7, 16, "and 12 more; "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := fit(repeat(test.lines), test.more)
			if len(got) != test.want {
				t.Fatalf("%d lines remain", len(got))
			}
			if len(got) > 0 && !strings.HasPrefix(got[len(got)-1], test.last) {
				t.Errorf("the last line is %q, want %q", got[len(got)-1], test.last)
			}
		})
	}
}

// An error of a workload's pods is no longer than a warning, with the text
// before it.
func TestRefusalOfWorkloadFits(t *testing.T) {
	t.Parallel()
	refusal := injector.Diagnostic{Annotation: "a", Text: strings.Repeat("x", 1000)}
	errors := []injector.Diagnostic{refusal}
	got := warnings(injector.Result{Decision: injector.Reject, Errors: errors}, errors, "")
	if len(got) != 1 || len(got[0]) > maxWarning || !strings.HasPrefix(got[0], "its pods will be rejected: a: x") {
		t.Errorf("got %q", got)
	}
}
