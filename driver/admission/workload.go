package admission

import (
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// workload is what all kinds that make pods have in common.
type workload struct {
	Spec struct {
		Template    corev1.PodTemplateSpec `json:"template"`
		JobTemplate struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
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
	var object workload
	if err := decode(request.Object.Raw, &object); err != nil {
		outcome.Result, outcome.Reason = Skipped, reasonUnreadable
		return outcome
	}
	template := object.Spec.Template
	if request.Kind.Kind == "CronJob" {
		template = object.Spec.JobTemplate.Spec.Template
	}
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	translation := r.Translator.Translate(pod, request.Namespace)
	outcome.judge(translation)
	outcome.Response.Warnings = workloadWarnings(translation)
	return outcome
}
