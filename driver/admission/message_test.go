package admission

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/driver/annotation"
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
		lines int
		last  string
	}{
		"none":         {0, ""},
		"all that fit": {16, line},
		"one too many": {17, "and 2 more; "},
		"many":         {100, "and 85 more; "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := fit(repeat(test.lines))
			if len(got) != min(test.lines, 16) {
				t.Fatalf("%d lines remain", len(got))
			}
			if len(got) > 0 && !strings.HasPrefix(got[len(got)-1], test.last) {
				t.Errorf("the last line is %q, want %q", got[len(got)-1], test.last)
			}
		})
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	if got := shorten("short"); got != "short" {
		t.Errorf("got %q", got)
	}
	for shift := range 3 {
		got := shorten(strings.Repeat("x", shift) + strings.Repeat("é", maxWarning))
		if len(got) > maxWarning || !utf8.ValidString(got) || !strings.HasSuffix(got, "é…") {
			t.Errorf("got %d bytes: %q", len(got), got)
		}
	}
}

// What is refused of a workload stays within a warning's length, whatever stands
// before it.
func TestRefusalOfWorkloadFits(t *testing.T) {
	t.Parallel()
	refusal := annotation.Notice{Annotation: "a", Text: strings.Repeat("x", 1000)}
	got := workloadWarnings(annotation.Translation{Decision: annotation.Refuse, Refusals: []annotation.Notice{refusal}})
	if len(got) != 1 || len(got[0]) > maxWarning || !strings.HasPrefix(got[0], "its pods will be refused: a: x") {
		t.Errorf("got %q", got)
	}
}
