package admission

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/driver/annotation"
)

// The API server passes warnings on up to a total, and cuts each at a length when
// that is exceeded. It counts characters; bytes are never fewer.
const (
	maxWarning  = 256
	maxWarnings = 4096
)

// denial is the message of a pod that does not start. For a single annotation it
// is one line: most people read it in an event of a ReplicaSet or a Job.
func denial(refusals []annotation.Notice) string {
	lines := make([]string, 0, len(refusals))
	for _, refusal := range refusals {
		lines = append(lines, refusal.String())
	}
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("%d annotations cannot be honoured:\n- %s", len(lines), strings.Join(fit(lines), "\n- "))
}

// podWarnings are shown to whoever makes the pod.
func podWarnings(translation annotation.Translation) []string {
	var lines []string
	if translation.Decision == annotation.Leave {
		lines = append(lines, "the pod is left to the injector, for what follows")
	}
	for _, warning := range translation.Warnings {
		lines = append(lines, warning.String())
	}
	return fit(lines)
}

// workloadWarnings are shown to whoever makes the workload: also what its pods
// will be refused for.
func workloadWarnings(translation annotation.Translation) []string {
	var lines []string
	if translation.Decision == annotation.Leave {
		lines = append(lines, "its pods are left to the injector, for what follows")
	}
	for _, refusal := range translation.Refusals {
		lines = append(lines, shorten("its pods will be refused: "+refusal.String()))
	}
	for _, warning := range translation.Warnings {
		lines = append(lines, warning.String())
	}
	return fit(lines)
}

// fit drops the tail of what is too much, and says so in its place.
func fit(lines []string) []string {
	total, room := 0, 0
	for i, line := range lines {
		total += len(line)
		if total <= maxWarnings-maxWarning {
			room = i + 1
		}
	}
	if total <= maxWarnings {
		return lines
	}
	rest := fmt.Sprintf("and %d more; \"vaultmount translate --check -f FILE\" lists them all", len(lines)-room)
	return append(lines[:room:room], rest)
}

func shorten(line string) string {
	const mark = "…"
	if len(line) <= maxWarning {
		return line
	}
	end := maxWarning - len(mark)
	for !utf8.RuneStart(line[end]) {
		end--
	}
	return line[:end] + mark
}
