package injector

import (
	"math"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// reportUnknown warns of what the injector does not read either: it ignores a
// misspelt annotation, and the pod lacks a file or a permission. One that ends
// where its file's name should be is refused: Kubernetes takes no such annotation
// of a pod, so it stands in a volume or a manifest that somebody has written by
// hand, and no pod that works today has it.
func (r *reading) reportUnknown() {
	for _, name := range r.sorted {
		switch _, ok := r.matches[name]; {
		case ok:
		case r.isUnnamed(name):
			r.refuse(name, "names no file; add the name, for example %sdb", name)
		default:
			r.warn(name, "is unknown and ignored; did you mean %q?", suggestion(func() string { return nearest(r.rows, name) }))
		}
	}
}

// isUnnamed tells the annotations of a file without its X.
func (r *reading) isUnnamed(name string) bool {
	return slices.ContainsFunc(r.rows, func(row row) bool { return slices.Contains(row.names, name+"X") })
}

// nearest returns the known name that takes the fewest edits. The X of a family
// is kept as it is. The name is within its limit: the edit distance takes quadratic
// time, and here one is computed for each dash.
func nearest(rows []row, name string) string {
	best, fewest := "", math.MaxInt
	consider := func(candidate string, edits int) {
		if edits < fewest {
			best, fewest = candidate, edits
		}
	}
	for _, row := range rows {
		for _, candidate := range row.names {
			// Names that lack agent- or template- are the commonest mistake.
			if strings.HasSuffix(candidate, "-"+name) {
				consider(candidate, 0)
			}
			family, isFamily := familyOf(candidate)
			if !isFamily {
				consider(candidate, levenshtein.ComputeDistance(name, candidate))
				continue
			}
			considerFamily(name, family, candidate, consider)
		}
	}
	return best
}

// considerFamily tries every dash of the name as the end of the family.
func considerFamily(name, family, candidate string, consider func(string, int)) {
	consider(candidate, 1+levenshtein.ComputeDistance(strings.TrimSuffix(name, "-"), strings.TrimSuffix(family, "-")))
	for i := range name {
		if name[i] == '-' && i+1 < len(name) {
			consider(family+name[i+1:], levenshtein.ComputeDistance(name[:i+1], family))
		}
	}
}
