package webhook

import (
	"fmt"
	"strings"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The API server passes warnings on up to a total, and cuts each at a length when
// that is exceeded. It counts characters; bytes are never fewer.
const (
	maxWarning  = 256
	maxWarnings = 4096
)

// denial is the message of a pod that does not start. For a single annotation it
// is one line: most people read it in an event of a ReplicaSet or a Job.
func denial(translation injector.Result) string {
	lines := make([]string, 0, len(translation.Errors))
	for _, refusal := range translation.Errors {
		lines = append(lines, refusal.String())
	}
	if len(lines) == 1 && translation.More == 0 {
		return lines[0]
	}
	atLeast := ""
	if translation.More > 0 {
		atLeast = "at least "
	}
	return fmt.Sprintf("%s%d annotations cannot be honoured:\n- %s", atLeast, len(lines), strings.Join(fit(lines, translation.More), "\n- "))
}

// podWarnings are shown to whoever makes the pod.
func podWarnings(translation injector.Result) []string {
	var lines []string
	if translation.Decision == injector.LeaveToInjector {
		lines = append(lines, "the pod is left to the injector, for what follows")
	}
	for _, warning := range translation.Warnings {
		lines = append(lines, warning.String())
	}
	if len(translation.Errors) > 0 {
		return fit(lines, 0) // the denial tells of more
	}
	return fit(lines, translation.More)
}

// workloadWarnings are shown to whoever makes the workload: also what its pods
// will be refused for.
func workloadWarnings(translation injector.Result) []string {
	var lines []string
	if translation.Decision == injector.LeaveToInjector {
		lines = append(lines, "its pods are left to the injector, for what follows")
	}
	for _, refusal := range translation.Errors {
		lines = append(lines, limits.Truncate("its pods will be refused: "+refusal.String(), maxWarning))
	}
	for _, warning := range translation.Warnings {
		lines = append(lines, warning.String())
	}
	return fit(lines, translation.More)
}

// fit drops the tail of what is too much, and says so in its place. More is what has
// been left out before.
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
