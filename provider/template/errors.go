package template

import (
	"fmt"
	"strconv"

	"github.com/vaultmount/vaultmount/provider/limits"
)

const (
	// quotedBytes is how much of a name or an argument an error repeats: enough to
	// find it in the template.
	quotedBytes = 64
	// reasonBytes is how much of what text/template says an error repeats. The place
	// before it and the remedy after it must fit as well.
	reasonBytes = 200
)

// newError is the one maker of errors about a template, none of which is longer than
// limits.ErrorBytes: the author of a template chooses much of its text.
func newError(kind error, format string, arguments ...any) error {
	separator := ": "
	longest := limits.ErrorBytes.Max() - len(kind.Error()) - len(separator)
	return fmt.Errorf("%w%s%s", kind, separator, limits.Truncate(fmt.Sprintf(format, arguments...), longest))
}

// quote repeats a name or an argument of the author.
func quote(text string) string { return strconv.Quote(limits.Truncate(text, quotedBytes)) }
