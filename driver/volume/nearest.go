package volume

import (
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// unknown refuses a key that is not in the vocabulary: a misspelt "perms/x"
// that is passed over would leave a secret world-readable.
func unknown(key string) error {
	verb, path, isFile := strings.Cut(key, "/")
	if !isFile {
		// "template" alone, most likely, lacks its file.
		if slices.Contains(fileVerbs(), key) {
			return wrong(key, "lacks its file; write %s/<file>", key)
		}
		return wrong(key, "is unknown; did you mean %q?", Nearest(key, append(volumeKeys(), fileVerbs()...)))
	}
	if slices.Contains(volumeKeys(), verb) {
		return wrong(key, "is unknown; %q belongs to the whole volume and takes no file", verb)
	}
	return wrong(key, "is unknown; did you mean %q?", Nearest(verb, fileVerbs())+"/"+path)
}

// orphan refuses an option of a file that no secret/ or template/ makes.
func (p *parser) orphan(key, path string) error {
	if len(p.files) == 0 {
		return wrong(key, "no secret/%s or template/%s makes this file", path, path)
	}
	return wrong(key, "no secret/%s or template/%s makes this file; did you mean %q?", path, path, Nearest(path, slices.Sorted(maps.Keys(p.files))))
}

// Nearest returns the candidate that takes the fewest edits, the first of them. There
// is at least one candidate.
func Nearest(word string, candidates []string) string {
	return slices.MinFunc(candidates, func(a, b string) int {
		return levenshtein.ComputeDistance(word, a) - levenshtein.ComputeDistance(word, b)
	})
}
