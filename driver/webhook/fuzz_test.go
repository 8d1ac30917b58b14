package webhook

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// FuzzReview looks for a panic, for work that costs more than in proportion to the
// object, for a patch that does not apply, and for a workload that is not allowed.
func FuzzReview(f *testing.F) {
	for _, directory := range directories(f, "testdata/*/object.yaml") {
		c := readCase(f, filepath.Join(directory, "object.yaml"))
		f.Add(c.request(f).Kind.Kind, c.object)
	}
	f.Fuzz(func(t *testing.T, kind string, object []byte) {
		request := &admissionv1.AdmissionRequest{UID: "a-uid", Namespace: "default", Operation: admissionv1.Create}
		request.Kind.Kind, request.Object.Raw = kind, object
		var got Outcome
		cost.Assert(t, len(object), func() { got = Reviewer{}.Review(request) })
		checkOutcome(t, got)
		if got.Response.Patch == nil {
			return
		}
		// The API server sends what its own types encode, with every struct there.
		var pod corev1.Pod
		if err := kjson.UnmarshalCaseSensitivePreserveInts(object, &pod); err != nil {
			return // the API server sends no such pod
		}
		sent, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		applyPatch(t, sent, got.Response.Patch)
	})
}

// FuzzBody looks for a panic on what is no review, or nearly one.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"a-uid","kind":{"kind":"Pod"},"operation":"CREATE","object":{"metadata":{"annotations":{"vault.hashicorp.com/agent-inject":"true"}}}}}`))
	handler := newHandler()
	f.Fuzz(func(t *testing.T, body []byte) {
		var recorder *httptest.ResponseRecorder
		cost.Assert(t, len(body), func() { recorder, _ = post(t, handler, "application/json", bytes.NewReader(body)) })
		if recorder.Code != http.StatusOK && recorder.Code != http.StatusBadRequest && recorder.Code != http.StatusInternalServerError {
			t.Errorf("answered %d", recorder.Code)
		}
	})
}
