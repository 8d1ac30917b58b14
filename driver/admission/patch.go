package admission

import (
	"encoding/json"

	"github.com/wI2L/jsondiff"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func allow() *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

// deny says no more than the injector does: what the API server adds to a message
// is the same for both.
func deny(message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
}

// patch brings the pod from one state to the other. Both are written by the same
// types, so a field that these do not know is in neither, and the pod keeps it.
func (o *Outcome) patch(before, after *corev1.Pod) {
	patch, err := diff(before, after)
	if err != nil {
		o.Result, o.Reason = Refused, reasonUnreadable
		o.Response = deny("write the patch: " + err.Error())
		return
	}
	if patch != nil {
		o.Response.Patch, o.Response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
	}
}

func diff(before, after *corev1.Pod) ([]byte, error) {
	operations, err := jsondiff.Compare(before, after)
	if err != nil || len(operations) == 0 {
		return nil, err
	}
	return json.Marshal(operations)
}
