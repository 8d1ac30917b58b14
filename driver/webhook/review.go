// Package webhook answers the API server's admission reviews: a pod gets the volumes
// that package injector makes of its annotations, and a workload gets warnings about
// the template of its pods, because nobody reads those of a pod that a controller
// creates.
//
// It reads nothing from the cluster, keeps nothing between reviews and parses no
// template. It never changes a pod that is not annotated, never changes or denies a
// workload, and never logs the value of an annotation. Memory and CPU time of reviews
// are bounded and fair. It imports driver/injector, provider/fairqueue and provider/limits.
package webhook

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// WarningsAnnotation repeats the warnings on a translated pod. The API server shows
// warnings only to whoever creates the pod, which is mostly a controller.
const WarningsAnnotation = "vaultmount.dev/warnings"

// ReviewResult is the result of a review.
type ReviewResult string

// The results of a review.
const (
	Translated ReviewResult = "translated" // the pod gets volumes
	Warned     ReviewResult = "warned"     // the pod gets volumes, and its author warnings
	Rejected   ReviewResult = "rejected"   // the pod does not start; of a workload, its pods will not
	Left       ReviewResult = "left"       // the injector serves the pod
	Skipped    ReviewResult = "skipped"    // the pod is not annotated, or has its volumes already
	Ignored    ReviewResult = "ignored"    // another kind of object, or another operation
	Unreadable ReviewResult = "unreadable" // the object does not decode as its kind
)

// Reviewer answers reviews with the settings of a Translator. It may be used
// concurrently.
type Reviewer struct {
	Translator injector.Translator
}

// Outcome is the answer to a request, and its description for logs and metrics.
type Outcome struct {
	Response *admissionv1.AdmissionResponse
	Result   ReviewResult
	Kind     string
	Object   klog.ObjectRef
	Warnings []injector.Diagnostic
	Errors   []injector.Diagnostic
}

// Review answers a request. A pod that does not decode is denied, any other object
// allowed.
func (r Reviewer) Review(request *admissionv1.AdmissionRequest) Outcome {
	outcome := Outcome{
		Response: &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true},
		Result:   Ignored, Kind: request.Kind.Kind, Object: klog.KRef(request.Namespace, request.Name),
	}
	switch {
	case request.SubResource != "":
	case outcome.Kind == "Pod" && request.Operation == admissionv1.Create:
		r.reviewPod(&outcome, request)
	case isWorkload(outcome.Kind) && request.Operation != admissionv1.Delete:
		r.reviewWorkload(&outcome, request)
	}
	return outcome
}

func (r Reviewer) reviewPod(outcome *Outcome, request *admissionv1.AdmissionRequest) {
	pod, err := injector.DecodePod(outcome.Kind, request.Object.Raw)
	if err != nil {
		outcome.deny("read the pod: " + err.Error())
		return
	}
	outcome.Object.Name = pod.Metadata.Name
	if pod.Metadata.Name == "" && pod.Metadata.GenerateName != "" { // the pod of a controller has no name yet
		outcome.Object.Name = pod.Metadata.GenerateName + "*"
	}
	result := r.Translator.Translate(pod, request.Namespace)
	outcome.describe(result)
	outcome.Response.Warnings = warnings(result, nil, "the injector serves this pod, because of the following")
	switch result.Decision {
	case injector.Reject:
		outcome.Response.Allowed, outcome.Response.Result = false, &metav1.Status{Message: denyMessage(result)}
	case injector.Translate:
		patch := result.Patch
		if len(outcome.Response.Warnings) > 0 {
			repeated := injector.AnnotateOperation(WarningsAnnotation, strings.Join(outcome.Response.Warnings, "\n"))
			patch = slices.Insert(patch, 1, repeated) // after the mark of a translated pod
		}
		text, err := json.Marshal(patch)
		if err != nil {
			outcome.deny("write the patch: " + err.Error())
			return
		}
		outcome.Response.Patch, outcome.Response.PatchType = text, new(admissionv1.PatchTypeJSONPatch)
	}
}

// reviewWorkload always allows: errors are warnings here, and deny a pod.
func (r Reviewer) reviewWorkload(outcome *Outcome, request *admissionv1.AdmissionRequest) {
	pod, err := injector.DecodePod(outcome.Kind, request.Object.Raw)
	if err != nil {
		outcome.Result = Unreadable
		return
	}
	result := r.Translator.Translate(pod, request.Namespace)
	outcome.describe(result)
	outcome.Response.Warnings = warnings(result, result.Errors, "the injector serves its pods, because of the following")
}

// describe sets the result of a translation.
func (o *Outcome) describe(result injector.Result) {
	o.Warnings, o.Errors = result.Warnings, result.Errors
	switch {
	case result.Decision == injector.Reject:
		o.Result = Rejected
	case result.Decision == injector.LeaveToInjector:
		o.Result = Left
	case result.Decision == injector.Skip:
		o.Result = Skipped
	case len(result.Warnings) > 0:
		o.Result = Warned
	default:
		o.Result = Translated
	}
}

// deny sets the message alone, as the injector does: the API server adds the same to both.
func (o *Outcome) deny(message string) {
	o.Result, o.Response.Allowed = Unreadable, false
	o.Response.Result = &metav1.Status{Message: limits.Truncate(message, limits.ErrorBytes.Max())}
}

func isWorkload(kind string) bool {
	_, ok := injector.PodPath(kind)
	return ok && kind != "Pod"
}

// The API server passes warnings on up to a total, and cuts each at a length when
// that is exceeded. It counts characters; bytes are never fewer.
const (
	maxWarning  = 256
	maxWarnings = 4096
)

// denyMessage is the message of a pod that does not start. One error is one line: most
// people read it in an Event of a ReplicaSet or a Job.
func denyMessage(result injector.Result) string {
	lines := make([]string, 0, len(result.Errors))
	for _, each := range result.Errors {
		lines = append(lines, each.String())
	}
	if len(lines) == 1 && result.More == 0 {
		return lines[0]
	}
	atLeast := ""
	if result.More > 0 {
		atLeast = "at least "
	}
	return fmt.Sprintf("%s%d annotations are not supported:\n- %s", atLeast, len(lines), strings.Join(fit(lines, result.More), "\n- "))
}

// warnings are shown to whoever creates the object. Errors are those of a workload's pods.
func warnings(result injector.Result, errors []injector.Diagnostic, left string) []string {
	var lines []string
	if result.Decision == injector.LeaveToInjector {
		lines = append(lines, left)
	}
	for _, each := range errors {
		lines = append(lines, limits.Truncate("its pods will be rejected: "+each.String(), maxWarning))
	}
	for _, each := range result.Warnings {
		lines = append(lines, each.String())
	}
	more := result.More
	if len(result.Errors) > len(errors) {
		more = 0 // the denial counts them
	}
	return fit(lines, more)
}

// fit replaces what exceeds the total length by one line with a count, to which more is
// added.
func fit(lines []string, more int) []string {
	total, kept := 0, 0
	for i, line := range lines {
		total += len(line)
		if total <= maxWarnings-maxWarning {
			kept = i + 1
		}
	}
	if total <= maxWarnings && more == 0 {
		return lines
	}
	rest := fmt.Sprintf("and %d more; correct these first", len(lines)-kept+more)
	return append(lines[:kept:kept], rest)
}
