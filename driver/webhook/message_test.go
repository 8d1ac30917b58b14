package webhook

import (
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/injector"
)

func TestFit(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("x", maxWarning)
	repeat := func(n int) []string {
		var all []string
		for range n {
			all = append(all, line)
		}
		return all
	}
	tests := map[string]struct {
		lines, more, want int
		last              string
	}{
		"none":                       {0, 0, 0, ""},
		"all that fit":               {16, 0, 16, line},
		"one too many":               {17, 0, 16, "and 2 more; "},
		"many":                       {100, 0, 16, "and 85 more; "},
		"few, and more left out":     {3, 7, 4, "and 7 more; "},
		"too many, and more besides": {20, 7, 16, "and 12 more; "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := fit(repeat(test.lines), test.more)
			if len(got) != test.want {
				t.Fatalf("%d lines remain", len(got))
			}
			if len(got) > 0 && !strings.HasPrefix(got[len(got)-1], test.last) {
				t.Errorf("the last line is %q, want %q", got[len(got)-1], test.last)
			}
		})
	}
}

// What is refused of a workload stays within a warning's length, whatever stands
// before it.
func TestRefusalOfWorkloadFits(t *testing.T) {
	t.Parallel()
	refusal := injector.Diagnostic{Annotation: "a", Text: strings.Repeat("x", 1000)}
	errors := []injector.Diagnostic{refusal}
	got := warnings(injector.Result{Decision: injector.Reject, Errors: errors}, errors, "")
	if len(got) != 1 || len(got[0]) > maxWarning || !strings.HasPrefix(got[0], "its pods will be rejected: a: x") {
		t.Errorf("got %q", got)
	}
}
