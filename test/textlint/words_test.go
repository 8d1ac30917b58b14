package main

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	w, err := parseWords("anew => again\nheld against => compare with\ncode Charge => activeNode\nallow by anew person\nskip driver/old\n")
	require.NoError(t, err)
	lines := []string{
		"// It logs in anew, as it is held",
		"// against the list. Charge is fine here",
		"func renewAnew(c Charge) {} // signed by anew person",
		`x := "Charge"`,
		"renewal",
	}
	want := []string{"a.go:3: Charge -> activeNode", "a.go:1: anew -> again", "a.go:1: held against -> compare with", "a.go:3: anew -> again"}
	if got := w.check("a.go", lines); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for path, want := range map[string]bool{"driver/old": true, "driver/old/a.go": true, "driver/older": false} {
		if w.skip(path) != want {
			t.Errorf("%s is skipped: %t", path, !want)
		}
	}
	if _, err := parseWords("no entry"); err == nil {
		t.Error("a line that is no entry is accepted")
	}
}
