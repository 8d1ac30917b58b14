package webhook

import (
	"encoding/json"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vaultmount/vaultmount/driver/injector"
)

func allow() *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

// deny says no more than the injector does: what the API server adds to a message
// is the same for both.
func deny(message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message}}
}

// patch encodes the changes of a translation. They name only what is added, so the pod
// keeps all other fields, those of a newer Kubernetes too.
func (o *Outcome) patch(operations []injector.Operation) {
	patch, err := json.Marshal(operations)
	if err != nil {
		o.Result, o.Reason = Rejected, reasonUnreadable
		o.Response = deny("write the patch: " + err.Error())
		return
	}
	o.Response.Patch, o.Response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
}
