package webhook

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/template"
)

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
