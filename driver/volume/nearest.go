package volume

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/vaultmount/vaultmount/provider/limits"
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
		return wrong(key, "is unknown%s", suggestion(key, append(volumeKeys(), fileVerbs()...), ""))
	}
	if slices.Contains(volumeKeys(), verb) {
		return wrong(key, "is unknown; %q belongs to the whole volume and takes no file", verb)
	}
	return wrong(key, "is unknown%s", suggestion(verb, fileVerbs(), "/"+path))
}

// orphan refuses an option of a file that no secret/ or template/ makes.
func (p *parser) orphan(key, path string) error {
	return wrong(key, "no secret/%s or template/%s makes this file%s", cut(path), cut(path), suggestion(path, slices.Sorted(maps.Keys(p.files)), ""))
}

// suggestion is the end of an error about a word that is misspelt.
func suggestion(word string, candidates []string, suffix string) string {
	nearest, ok := Nearest(word, candidates)
	if !ok {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", quote(nearest+suffix))
}

// Nearest returns the candidate that takes the fewest edits, the first of them. It
// reports false where none is near enough to compute: the edit distance takes quadratic
// time. So words and candidates have at most limits.SuggestionBytes, and only the first
// limits.SuggestionCandidates count.
func Nearest(word string, candidates []string) (nearest string, ok bool) {
	if limits.SuggestionBytes.Check(len(word)) != nil {
		return "", false
	}
	fewest := 0
	for _, candidate := range candidates[:min(len(candidates), limits.SuggestionCandidates.Max())] {
		if limits.SuggestionBytes.Check(len(candidate)) != nil {
			continue
		}
		if edits := levenshtein.ComputeDistance(word, candidate); !ok || edits < fewest {
			nearest, fewest, ok = candidate, edits, true
		}
	}
	return nearest, ok
}
