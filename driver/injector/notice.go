package injector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// maxDiagnostic is the length beyond which the API server cuts a warning off.
const maxDiagnostic = 256

// Diagnostic is about one annotation: what is wrong and what to write instead.
type Diagnostic struct {
	// Annotation is the key as the user wrote it, with its prefix.
	Annotation string
	Text       string
}

// String returns one line of at most 256 bytes.
func (n Diagnostic) String() string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, n.Annotation+": "+n.Text)
	return limits.Truncate(line, maxDiagnostic)
}

// quote shows enough of a value to recognise it: it may be a template gone
// astray.
func quote(value string) string {
	const enough = 60
	return fmt.Sprintf("%q", limits.Truncate(value, enough))
}

// quoteAll quotes the first of many values.
func quoteAll(values []string) string {
	const enough = 10
	var quoted []string
	for _, value := range values[:min(len(values), enough)] {
		quoted = append(quoted, quote(value))
	}
	if len(values) > enough {
		quoted = append(quoted, fmt.Sprintf("and %d more", len(values)-enough))
	}
	return "[" + strings.Join(quoted, " ") + "]"
}

func (r *reading) warn(name, format string, arguments ...any) {
	r.warnings = r.add(r.warnings, name, format, arguments)
}

func (r *reading) refuse(name, format string, arguments ...any) {
	r.refusals = r.add(r.refusals, name, format, arguments)
}

// add leaves out what is there already: an annotation of the whole pod goes into
// each of its volumes. Above the limit it formats nothing, and keeps only the name.
func (r *reading) add(diagnostics []Diagnostic, name, format string, arguments []any) []Diagnostic {
	if len(diagnostics) == limits.Diagnostics.Max() {
		r.more[name] = true
		return diagnostics
	}
	text := limits.Truncate(fmt.Sprintf(format, arguments...), limits.ErrorBytes.Max())
	diagnostic := Diagnostic{Annotation: r.settings.Prefix + limits.Truncate(name, limits.AnnotationNameBytes.Max()), Text: text}
	if slices.Contains(diagnostics, diagnostic) {
		return diagnostics
	}
	return append(diagnostics, diagnostic)
}

// suggestion is part of a diagnostic that is computed only if it is told.
type suggestion func() string

// String implements fmt.Stringer.
func (s suggestion) String() string { return s() }

// cutWarnings keeps all diagnostics of a pod within the limit, refusals first.
func (r *reading) cutWarnings() {
	keep := min(len(r.warnings), limits.Diagnostics.Max()-len(r.refusals))
	for _, cut := range r.warnings[keep:] {
		r.more[strings.TrimPrefix(cut.Annotation, r.settings.Prefix)] = true
	}
	r.warnings = r.warnings[:keep]
	for _, told := range slices.Concat(r.warnings, r.refusals) {
		delete(r.more, strings.TrimPrefix(told.Annotation, r.settings.Prefix))
	}
}

// inOrder sorts by annotation, so that the same pod gives the same text, however
// the maps were walked.
func inOrder(diagnostics []Diagnostic) []Diagnostic {
	slices.SortStableFunc(diagnostics, func(a, b Diagnostic) int {
		return cmp.Compare(a.Annotation, b.Annotation)
	})
	return diagnostics
}
