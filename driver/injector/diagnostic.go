package injector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// maxDiagnostic is the length in bytes beyond which the API server truncates a
// warning.
const maxDiagnostic = 256

// maxQuoted is how many bytes of a value a diagnostic repeats. The value may be a
// template under the wrong name.
const maxQuoted = 60

// Diagnostic is a warning or an error about one annotation: the cause and the remedy.
type Diagnostic struct {
	// Annotation is the key as the user wrote it, with its prefix.
	Annotation string
	Text       string
}

// String returns one line of at most 256 bytes.
func (d Diagnostic) String() string {
	line := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, d.Annotation+": "+d.Text)
	return limits.Truncate(line, maxDiagnostic)
}

func quote(value string) string { return fmt.Sprintf("%q", limits.Truncate(value, maxQuoted)) }

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

func (t *translation) warn(name, format string, arguments ...any) {
	t.warnings = t.add(t.warnings, name, format, arguments)
}

func (t *translation) reject(name, format string, arguments ...any) {
	t.errors = t.add(t.errors, name, format, arguments)
}

// add drops a diagnostic that is there already: an annotation of the whole pod belongs
// to each of its volumes. Above the limit it formats nothing and keeps only the name.
func (t *translation) add(diagnostics []Diagnostic, name, format string, arguments []any) []Diagnostic {
	if len(diagnostics) == limits.Diagnostics.Max() {
		t.more[name] = true
		return diagnostics
	}
	diagnostic := Diagnostic{
		Annotation: t.settings.Prefix + limits.Truncate(name, limits.AnnotationNameBytes.Max()),
		Text:       limits.Truncate(fmt.Sprintf(format, arguments...), limits.ErrorBytes.Max()),
	}
	if slices.Contains(diagnostics, diagnostic) {
		return diagnostics
	}
	return append(diagnostics, diagnostic)
}

// warnUnread is for an annotation that another one makes meaningless.
func (t *translation) warnUnread(name, text string) {
	if t.has(name) {
		t.warn(name, "%s", text)
	}
}

// lazy is a part of a diagnostic that is computed only if the diagnostic is kept.
type lazy func() string

// String implements fmt.Stringer.
func (l lazy) String() string { return l() }

// truncateWarnings keeps all diagnostics of a pod within the limit, errors first.
func (t *translation) truncateWarnings() {
	keep := min(len(t.warnings), limits.Diagnostics.Max()-len(t.errors))
	for _, dropped := range t.warnings[keep:] {
		t.more[strings.TrimPrefix(dropped.Annotation, t.settings.Prefix)] = true
	}
	t.warnings = t.warnings[:keep]
	for _, kept := range slices.Concat(t.warnings, t.errors) {
		delete(t.more, strings.TrimPrefix(kept.Annotation, t.settings.Prefix))
	}
}

// sortDiagnostics makes the order of a pod's diagnostics independent of map iteration.
func sortDiagnostics(diagnostics []Diagnostic) []Diagnostic {
	slices.SortStableFunc(diagnostics, func(a, b Diagnostic) int {
		return cmp.Compare(a.Annotation, b.Annotation)
	})
	return diagnostics
}
