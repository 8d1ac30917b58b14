package annotation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNotice is the length beyond which the API server cuts a warning off.
const maxNotice = 256

// Notice is about one annotation: what is wrong and what to write instead.
type Notice struct {
	// Annotation is the key as the user wrote it, with its prefix.
	Annotation string
	Text       string
}

// String returns one line of at most 256 bytes.
func (n Notice) String() string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, n.Annotation+": "+n.Text)
	return shorten(line, maxNotice)
}

func shorten(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// quote shows enough of a value to recognise it: it may be a template gone
// astray.
func quote(value string) string {
	const enough = 60
	return fmt.Sprintf("%q", shorten(value, enough))
}

func (r *reading) warn(name, format string, arguments ...any) {
	r.warnings = r.add(r.warnings, name, format, arguments)
}

func (r *reading) refuse(name, format string, arguments ...any) {
	r.refusals = r.add(r.refusals, name, format, arguments)
}

// add leaves out what is there already: an annotation of the whole pod goes into
// each of its volumes.
func (r *reading) add(notices []Notice, name, format string, arguments []any) []Notice {
	notice := Notice{Annotation: r.settings.Prefix + name, Text: fmt.Sprintf(format, arguments...)}
	if slices.Contains(notices, notice) {
		return notices
	}
	return append(notices, notice)
}

// inOrder sorts by annotation, so that the same pod gives the same text, however
// the maps were walked.
func inOrder(notices []Notice) []Notice {
	slices.SortStableFunc(notices, func(a, b Notice) int {
		return cmp.Compare(a.Annotation, b.Annotation)
	})
	return notices
}
