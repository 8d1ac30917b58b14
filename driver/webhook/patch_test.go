package webhook

import (
	"encoding/json"
	"path/filepath"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// For every golden pod of package injector, what the API server makes of the
// patch is the pod that Apply makes, but for the repeated warnings. The library
// that applies the patch is the API server's.
func TestPatchLeadsToTheTranslatedPod(t *testing.T) {
	t.Parallel()
	translated := 0
	for _, directory := range directories(t, "../injector/testdata/*/pod.yaml") {
		t.Run(filepath.Base(directory), func(t *testing.T) {
			c := readCase(t, filepath.Join(directory, "pod.yaml"))
			got := Reviewer{c.Translator}.Review(c.request(t))
			checkOutcome(t, got)
			var pod corev1.Pod
			if err := decode(c.object, &pod); err != nil {
				t.Fatal(err)
			}
			translation := c.Translate(&pod, c.namespace)
			if allowed := translation.Decision != injector.Reject; got.Response.Allowed != allowed {
				t.Fatalf("allowed=%t, want %t", got.Response.Allowed, allowed)
			}
			if translation.Decision == injector.Translate {
				translated++
			} else if got.Response.Patch != nil {
				t.Fatalf("a pod to %s is changed: %s", translation.Decision, got.Response.Patch)
			}
			patched := applyPatch(t, c.object, got.Response.Patch)
			requireWarningsRepeated(t, got, patched)
			delete(patched.Annotations, WarningsAnnotation)
			if want := c.Apply(&pod, translation); !equality.Semantic.DeepEqual(patched, want) {
				t.Errorf("the patch leads to\n%+v\nwant\n%+v", patched, want)
			}
		})
	}
	if translated < 60 {
		t.Errorf("only %d pods were translated", translated)
	}
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

func decode(object []byte, into any) error {
	return kjson.UnmarshalCaseSensitivePreserveInts(object, into)
}
