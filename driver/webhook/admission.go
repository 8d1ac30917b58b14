// Package webhook is the webhook: it takes the API server's reviews of pods and
// answers with the patch that package injector works out. Of workloads it
// reviews the template of their pods and answers with warnings alone, since what
// is said of a pod that a controller makes is said to the controller.
//
// It decides nothing about annotations itself, keeps nothing from one review to
// the next, and reads nothing from the cluster. It never changes a pod that does
// not ask for it, never changes or denies a workload, and never logs a value of
// an annotation.
package webhook

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// WarningsAnnotation repeats, on a translated pod, what its author was warned of.
// The API server shows warnings to whoever made the pod: for most a controller.
const WarningsAnnotation = "vaultmount.dev/warnings"

// Result is what became of a request.
type Result string

// The results.
const (
	// Translated: the pod gets volumes, and there is nothing to say.
	Translated Result = "translated"
	// Warned: the pod gets volumes, and its author a warning.
	Warned Result = "warned"
	// Rejected: the pod does not start. Of a workload: its pods will not.
	Rejected Result = "rejected"
	// Skipped: the pod does not ask, or has been translated before.
	Skipped Result = "skipped"
	// Left: the pod is left to the injector.
	Left Result = "left"
)

// The reasons, where a result has more than one.
const (
	reasonAnnotations = "annotations" // what they say cannot be honoured
	reasonUnreadable  = "unreadable"  // the object is not what its kind says
	reasonNothing     = "nothing-to-do"
	reasonKind        = "kind"      // neither a pod nor a workload
	reasonOperation   = "operation" // a pod that exists has its volumes already
)

// Reviewer answers reviews by the settings of a Translator. It may be used
// concurrently.
type Reviewer struct {
	Translator injector.Translator
}

// Outcome is the answer to a request and what is to be said of it in logs and
// metrics.
type Outcome struct {
	Response *admissionv1.AdmissionResponse
	Result   Result
	Reason   string
	Kind     string
	Object   klog.ObjectRef
	Warnings []injector.Diagnostic
	Refusals []injector.Diagnostic
}

// Review answers a request. It does not fail: what cannot be read is denied if it
// claims to be a pod, and allowed otherwise.
func (r Reviewer) Review(request *admissionv1.AdmissionRequest) Outcome {
	outcome := r.review(request)
	outcome.Response.UID = request.UID
	return outcome
}

func (r Reviewer) review(request *admissionv1.AdmissionRequest) Outcome {
	kind := request.Kind.Kind
	object := klog.KRef(request.Namespace, request.Name)
	if request.SubResource != "" || kind != "Pod" && !isWorkload(kind) {
		return skip(kind, object, reasonKind)
	}
	if isWorkload(kind) {
		return r.reviewWorkload(request)
	}
	if request.Operation != admissionv1.Create {
		return skip(kind, object, reasonOperation)
	}
	return r.reviewPod(request)
}

func skip(kind string, object klog.ObjectRef, reason string) Outcome {
	return Outcome{Response: allow(), Result: Skipped, Reason: reason, Kind: kind, Object: object}
}

func (r Reviewer) reviewPod(request *admissionv1.AdmissionRequest) Outcome {
	outcome := Outcome{Kind: request.Kind.Kind, Object: klog.KRef(request.Namespace, request.Name)}
	pod, err := injector.DecodePod("Pod", request.Object.Raw)
	if err != nil {
		outcome.Result, outcome.Reason = Rejected, reasonUnreadable
		outcome.Response = deny(limits.Truncate("read the pod: "+err.Error(), limits.ErrorBytes.Max()))
		return outcome
	}
	outcome.Object.Name = nameOf(pod)
	translation := r.Translator.Translate(pod, request.Namespace)
	outcome.judge(translation)
	outcome.Response = allow()
	if translation.Decision == injector.Reject {
		outcome.Response = deny(denial(translation))
	}
	outcome.Response.Warnings = podWarnings(translation)
	if translation.Decision == injector.Translate {
		patch := translation.Patch
		if len(outcome.Response.Warnings) > 0 {
			repeated := injector.AnnotateOperation(WarningsAnnotation, strings.Join(outcome.Response.Warnings, "\n"))
			patch = slices.Insert(patch, 1, repeated) // behind the mark
		}
		outcome.patch(patch)
	}
	return outcome
}

// judge names what a translation comes to.
func (o *Outcome) judge(translation injector.Result) {
	o.Warnings, o.Refusals = translation.Warnings, translation.Errors
	o.Reason = reasonAnnotations
	switch {
	case translation.Decision == injector.Reject:
		o.Result = Rejected
	case translation.Decision == injector.LeaveToInjector:
		o.Result = Left
	case translation.Decision == injector.Skip:
		o.Result, o.Reason = Skipped, reasonNothing
	case len(translation.Warnings) > 0:
		o.Result = Warned
	default:
		o.Result = Translated
	}
}

// nameOf: a pod of a controller has no name yet.
func nameOf(pod injector.PodInfo) string {
	if pod.Metadata.Name == "" && pod.Metadata.GenerateName != "" {
		return pod.Metadata.GenerateName + "*"
	}
	return pod.Metadata.Name
}
