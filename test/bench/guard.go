package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
)

// slack is how much worse a ratio may get from one report to the next. Two runs on
// a quiet machine differ by less than half of it.
const slack = 1.25

// ReadRatios reads those of an earlier run.
func ReadRatios(path string) (Ratios, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the ratios of the last report: %w", err)
	}
	var ratios Ratios
	if err := json.Unmarshal(text, &ratios); err != nil {
		return nil, fmt.Errorf("read the ratios of the last report: %s: %w", path, err)
	}
	return ratios, nil
}

// WriteRatios writes those of a run for the next to compare with.
func WriteRatios(path string, ratios Ratios) error {
	text, err := json.MarshalIndent(ratios, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Worse names each ratio that got worse by more than a quarter, and each that is
// not measured any more.
//
// Exponents are not among them, since near zero a quarter is nothing, nor are times,
// which are the machine's, nor the reads of some intervals, of which one more is a
// quarter. Their goals are what holds them.
func Worse(before, now Ratios) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(before)) {
		old := before[name]
		if slices.Contains(unguarded(), name) {
			continue
		}
		ratio, measured := now[name]
		switch {
		case !measured:
			found = append(found, fmt.Sprintf("%s: not measured any more; it was %.3g", name, old.Value))
		case old.Better == Lower && ratio.Value > old.Value*slack, old.Better == Higher && ratio.Value < old.Value/slack:
			found = append(found, fmt.Sprintf("%s: %.3g, and it was %.3g (%s is better)", name, ratio.Value, old.Value, old.Better))
		}
	}
	return found
}

func unguarded() []string {
	return []string{TimeExponent, RepublishExponent, MemoryExponent, RepublishTime, IdleShare, SharedReads}
}
