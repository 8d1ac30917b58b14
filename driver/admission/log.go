package admission

import (
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/annotation"
)

// The keys of log lines. Values are names and outcomes: the text of a notice may
// quote an annotation, which may be a template.
const (
	logUID      = "uid"
	logKind     = "kind"
	logObject   = "object"
	logResult   = "result"
	logReason   = "reason"
	logRefused  = "refused"
	logWarned   = "warned"
	logDryRun   = "dryRun"
	logDuration = "duration"
	logStatus   = "status"
	logStack    = "stack"
	logAddress  = "address"
)

// Verbosity of what is not an error.
const (
	levelChange    = 2 // a pod that asks
	levelHandshake = 2 // a client that does not trust the certificate
	levelRequest   = 4 // any request
)

// logOutcome writes one line for a request.
func logOutcome(logger klog.Logger, request *admissionv1.AdmissionRequest, outcome Outcome, duration time.Duration) {
	level := levelChange
	if outcome.Result == Skipped && len(outcome.Warnings) == 0 {
		level = levelRequest
	}
	logger = logger.V(level)
	if !logger.Enabled() {
		return
	}
	values := []any{logUID, request.UID, logKind, outcome.Kind, logObject, outcome.Object, logResult, outcome.Result, logReason, outcome.Reason, logDuration, duration.Round(time.Microsecond).String()}
	if names := annotationsOf(outcome.Refusals); len(names) > 0 {
		values = append(values, logRefused, names)
	}
	if names := annotationsOf(outcome.Warnings); len(names) > 0 {
		values = append(values, logWarned, names)
	}
	if request.DryRun != nil && *request.DryRun {
		values = append(values, logDryRun, true)
	}
	logger.Info("Request reviewed", values...)
}

func annotationsOf(notices []annotation.Notice) []string {
	var names []string
	for _, notice := range notices {
		names = append(names, notice.Annotation)
	}
	return names
}
