package webhook

import (
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The keys of log lines. Values are names and outcomes: the text of a notice may
// quote an annotation, which may be a template.
const (
	logUID      = "uid"
	logKind     = "kind"
	logObject   = "object"
	logResult   = "result"
	logReason   = "reason"
	logRefused  = "rejected"
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

// Kubernetes checks names after admission, and whoever reaches the port may send any.
// These lengths, in bytes, are those of real ones.
const (
	enoughOfNamespace = 63
	enoughOfName      = 253
)

// logOutcome writes one line for a request, of at most limits.LogLineBytes.
func logOutcome(logger klog.Logger, request *admissionv1.AdmissionRequest, outcome Outcome, duration time.Duration) {
	level := levelChange
	if outcome.Result == Skipped && len(outcome.Warnings) == 0 {
		level = levelRequest
	}
	logger = logger.V(level)
	if !logger.Enabled() {
		return
	}
	object := klog.KRef(limits.Truncate(outcome.Object.Namespace, enoughOfNamespace), limits.Truncate(outcome.Object.Name, enoughOfName))
	values := []any{logUID, cutUID(request.UID), logKind, limits.Truncate(outcome.Kind, enoughOfNamespace), logObject, object, logResult, outcome.Result, logReason, outcome.Reason, logDuration, duration.Round(time.Microsecond).String()}
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

// annotationsOf names the first of many.
func annotationsOf(notices []injector.Diagnostic) []string {
	const enough = 8
	var names []string
	for _, notice := range notices[:min(len(notices), enough)] {
		names = append(names, notice.Annotation)
	}
	if len(notices) > enough {
		names = append(names, fmt.Sprintf("and %d more", len(notices)-enough))
	}
	return names
}

func cutUID(uid types.UID) string { return limits.Truncate(string(uid), enoughOfNamespace) }
