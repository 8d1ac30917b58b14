package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	var hundred Series
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for name, c := range map[string]struct {
		of   Series
		part float64
		want time.Duration
	}{
		"median":       {hundred, 0.5, 50},
		"of 99 in 100": {hundred, 0.99, 99},
		"last":         {hundred, 1, 100},
		"first":        {hundred, 0, 1},
		"of one":       {Series{7}, 0.99, 7},
		"of none":      {nil, 0.5, 0},
	} {
		if got := c.of.Quantile(c.part); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
}

func TestExponent(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ from, to, want float64 }{
		"stays":         {3, 3, 0},
		"in proportion": {3, 150, 1},
		"square":        {1, 2500, 2},
		"not measured":  {0, 3, 0},
	} {
		if got := Exponent(100, 5000, c.from, c.to); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %g, want %g", name, got, c.want)
		}
	}
}

func TestInversions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		done Series
		want float64
	}{
		"as they came":   {Series{1, 2, 3, 4}, 0},
		"the other way":  {Series{4, 3, 2, 1}, 1},
		"one overtaken":  {Series{2, 1, 3, 4}, 1.0 / 6},
		"nothing to say": {Series{1}, 0},
	} {
		if got := Inversions(c.done); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: got %g, want %g", name, got, c.want)
		}
	}
}

// The guard fails for what got worse by more than a quarter in its own direction,
// and for what nobody measures any more.
func TestGuard(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ratios.json")
	committed := Ratios{
		"time": {1.2, Lower}, "speed": {20, Higher}, "requests": {0, Lower}, "dropped": {1, Lower}, TimeExponent: {0.01, Lower}, IdleShare: {0.1, Lower},
	}
	require.NoError(t, WriteRatios(path, committed))
	before, err := ReadRatios(path)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		now  Ratios
		want []string
	}{
		"the same":    {committed, nil},
		"within":      {Ratios{"time": {1.49, Lower}, "speed": {16.1, Higher}, "requests": {0, Lower}, "dropped": {0.1, Lower}}, nil},
		"better":      {Ratios{"time": {0.5, Lower}, "speed": {100, Higher}, "requests": {0, Lower}, "dropped": {1, Lower}}, nil},
		"worse":       {Ratios{"time": {1.51, Lower}, "speed": {15.9, Higher}, "requests": {1, Lower}, "dropped": {1, Lower}}, []string{"requests", "speed", "time"}},
		"not there":   {Ratios{"time": {1.2, Lower}, "speed": {20, Higher}, "requests": {0, Lower}}, []string{"dropped"}},
		"an exponent": {Ratios{"time": {1.2, Lower}, "speed": {20, Higher}, "requests": {0, Lower}, "dropped": {1, Lower}, TimeExponent: {0.09, Lower}, IdleShare: {0.4, Lower}}, nil},
	} {
		var named []string
		for _, text := range Worse(before, c.now) {
			name, _, _ := strings.Cut(text, ":")
			named = append(named, name)
		}
		if !slices.Equal(named, c.want) {
			t.Errorf("%s: got %q, want %q", name, named, c.want)
		}
	}
}

// A goal that nobody measured is a goal that was missed.
func TestMissed(t *testing.T) {
	t.Parallel()
	all := Ratios{}
	for _, goal := range Goals() {
		all[goal.Ratio] = Ratio{goal.Bound, goal.Better}
	}
	if missed := Missed(all); len(missed) > 0 {
		t.Errorf("at their bounds, goals are missed: %v", missed)
	}
	all[PublishOverFloor] = Ratio{1.26, Lower}
	all[AgentOverPublish] = Ratio{19.9, Higher}
	delete(all, IdleShare)
	var names []string
	for _, goal := range Missed(all) {
		names = append(names, goal.Ratio)
	}
	if !slices.Equal(names, []string{PublishOverFloor, AgentOverPublish, IdleShare}) {
		t.Errorf("got %q", names)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	r := Report{
		Machine: "two cores", Run: "today",
		Sections: []Section{{Title: "Speed", Text: "It runs.", Head: []string{"a", "b"}, Rows: [][]string{{"1", "2"}}, Plot: "speed.svg", After: "Fast."}},
		Profiles: []Profile{{Title: "publish", Top: "main"}},
		Plots:    []Plot{{File: "speed.svg", Title: "Speed", LogX: true, Lines: []Line{Distribution("x", Series{1e6, 2e6})}}},
	}
	r.Put(PublishOverFloor, 1.5, Lower)
	var text strings.Builder
	require.NoError(t, r.Write(&text))
	for _, want := range []string{
		"| " + PublishOverFloor + " | ≤ 1.25 | 1.5 | **missed** |", "| " + IdleShare + " | ≤ 0.5 | – | not measured |",
		"| a | b |\n|---|---|\n| 1 | 2 |", "![Speed](plots/speed.svg)\n\nFast.", "### publish\n\n```\nmain\n```",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, text.String())
		}
	}
	directory := t.TempDir()
	require.NoError(t, r.Plots[0].Draw(directory))
	if found, err := filepath.Glob(filepath.Join(directory, "*.svg")); err != nil || len(found) != 1 {
		t.Errorf("drawn: %q, %v", found, err)
	}
}

// Each line of a picture has a color of its own, and its name is beside the curves.
func TestDraw(t *testing.T) {
	t.Parallel()
	plot := Plot{File: "speed.svg", Title: "Speed", LogX: true}
	for i := range len(colors()) {
		plot.Lines = append(plot.Lines, Distribution(fmt.Sprintf("series %d", i), Series{1e6, 2e6}))
	}
	directory := t.TempDir()
	require.NoError(t, plot.Draw(directory))
	content, err := os.ReadFile(filepath.Join(directory, plot.File))
	require.NoError(t, err)
	strokes := map[string]bool{}
	for _, stroke := range regexp.MustCompile(`stroke:(#[0-9A-F]{6})`).FindAllStringSubmatch(string(content), -1) {
		strokes[stroke[1]] = true
	}
	if len(strokes) < len(colors()) { // the axes are black, as one of the lines
		t.Errorf("the picture has %d colors for %d lines", len(strokes), len(colors()))
	}
	for _, line := range plot.Lines {
		if !strings.Contains(string(content), ">"+line.Name+"<") {
			t.Errorf("the picture does not name %s", line.Name)
		}
	}
	plot.Lines = append(plot.Lines, plot.Lines[0])
	if err := plot.Draw(directory); err == nil || !strings.Contains(err.Error(), "9 lines") {
		t.Errorf("nine lines: %v", err)
	}
}
