package webhook

import (
	"encoding/json"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/driver/injector"
)

// workload is what all kinds that make pods have in common. A template has the
// fields of a pod.
type workload struct {
	Spec struct {
		Template    json.RawMessage `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template json.RawMessage `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
}

func isWorkload(kind string) bool {
	return slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"}, kind)
}

// reviewWorkload allows in any case: what is wrong is said here, and refused where
// a pod is made.
func (r Reviewer) reviewWorkload(request *admissionv1.AdmissionRequest) Outcome {
	outcome := Outcome{Kind: request.Kind.Kind, Object: klog.KRef(request.Namespace, request.Name), Response: allow()}
	if request.Operation == admissionv1.Delete {
		outcome.Result, outcome.Reason = Skipped, reasonOperation
		return outcome
	}
	pod, err := decodeTemplate(request.Kind.Kind, request.Object.Raw)
	if err != nil {
		outcome.Result, outcome.Reason = Skipped, reasonUnreadable
		return outcome
	}
	translation := r.Translator.Translate(pod, request.Namespace)
	outcome.judge(translation)
	outcome.Response.Warnings = workloadWarnings(translation)
	return outcome
}

func decodeTemplate(kind string, text []byte) (*corev1.Pod, error) {
	var object workload
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &object); err != nil {
		return nil, err
	}
	template := object.Spec.Template
	if kind == "CronJob" {
		template = object.Spec.JobTemplate.Spec.Template
	}
	if len(template) == 0 {
		return &corev1.Pod{}, nil
	}
	return injector.DecodePod(template)
}
