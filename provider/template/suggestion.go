package template

import (
	"fmt"
	"slices"

	"github.com/agnivade/levenshtein"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// suggestion names the function that was most likely meant, if there is one.
func suggestion(name string) string {
	if slices.Contains(sprigFunctions(), name) {
		return fmt.Sprintf("; sprig's is %s%s", sprigPrefix, name)
	}
	if limits.SuggestionBytes.Check(len(name)) != nil {
		return "" // the edit distance takes quadratic time
	}
	var near string
	// A third of the letters may differ; with more, a hint would mislead.
	limit := max(1, len(name)/3)
	best := limit + 1
	for _, candidate := range usableFunctions() {
		if distance := levenshtein.ComputeDistance(name, candidate); distance < best {
			near, best = candidate, distance
		}
	}
	if near == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", near)
}

func usableFunctions() []string {
	usable := slices.Concat(emulatedFunctions(), offeredFunctions(), builtinFunctions())
	for _, name := range sprigFunctions() {
		usable = append(usable, sprigPrefix+name)
	}
	return usable
}
