package webhook

import (
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
)

func isWorkload(kind string) bool {
	_, ok := injector.PodPath(kind)
	return ok && kind != "Pod"
}

// reviewWorkload allows in any case: what is wrong is said here, and refused where
// a pod is made.
func (r Reviewer) reviewWorkload(request *admissionv1.AdmissionRequest) Outcome {
	outcome := Outcome{Kind: request.Kind.Kind, Object: klog.KRef(request.Namespace, request.Name), Response: allow()}
	if request.Operation == admissionv1.Delete {
		outcome.Result, outcome.Reason = Skipped, reasonOperation
		return outcome
	}
	pod, err := injector.DecodePod(request.Kind.Kind, request.Object.Raw)
	if err != nil {
		outcome.Result, outcome.Reason = Skipped, reasonUnreadable
		return outcome
	}
	translation := r.Translator.Translate(pod, request.Namespace)
	outcome.judge(translation)
	outcome.Response.Warnings = workloadWarnings(translation)
	return outcome
}
