package main

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	w, err := parseWords("gadget => tool\nput to => set\ncode Widget => Part\nallow by gadget maker\nskip driver/old\n")
	require.NoError(t, err)
	lines := []string{
		"// It is a gadget that is put",
		"// to zero. Widget is fine here",
		"func newGadget(w Widget) {} // signed by gadget maker",
		`x := "Widget"`,
		"gadgetry",
	}
	want := []string{"a.go:3: Widget -> Part", "a.go:1: gadget -> tool", "a.go:1: put to -> set", "a.go:3: gadget -> tool"}
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
