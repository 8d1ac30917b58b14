package render

import (
	"fmt"
	"slices"
	"strings"
)

// execution is one run of a template: it gives answers, and notes what is asked
// and written.
type execution struct {
	template      Template
	answers       Answers
	used, missing []Query
	// secrets are the copies of answers that this run may change.
	secrets map[Query]any
	files   []WrittenFile
	failure *ownFailure
}

// functions replace consul-template's own of the same names. Check has refused
// what is not offered; here it is taken away as well, so that a call which Check
// missed would do nothing. Consul-template has a denylist for that, which takes
// longer than all the rest of a rendering.
func (e *execution) functions() map[string]any {
	functions := map[string]any{
		"secret":       e.secret,
		"secrets":      e.list,
		"pkiCert":      e.pkiCert,
		"env":          e.env,
		"mustEnv":      e.mustEnv,
		"envOrDefault": e.envOrDefault,
		"file":         e.file,
		"writeToFile":  e.writeToFile,
		"loop":         e.loop,
	}
	for _, name := range refusedFunctions() {
		functions[name] = func(...any) (any, error) { return nil, e.fail("the function %s is not available", name) }
	}
	return functions
}

// ask returns the answer to a query, or notes that it is missing.
func (e *execution) ask(query Query) (Answer, bool) {
	if !slices.Contains(e.used, query) {
		e.used = append(e.used, query)
	}
	answer, ok := e.answers[query]
	if !ok && !slices.Contains(e.missing, query) {
		e.missing = append(e.missing, query)
	}
	return answer, ok
}

// fail is for what the author has to put right in the template.
func (e *execution) fail(format string, arguments ...any) error {
	e.failure = &ownFailure{ErrInvalid, fmt.Sprintf(format, arguments...)}
	return e.failure
}

// failOnData is for what would be right with other answers or another pod.
func (e *execution) failOnData(format string, arguments ...any) error {
	e.failure = &ownFailure{ErrData, fmt.Sprintf(format, arguments...)}
	return e.failure
}

// failBy is fail for a problem that may repeat an argument.
func (e *execution) failBy(function string, problem *problem) error {
	return e.fail("%s: %s", function, problem.text(e.isAuthors))
}

// ownFailure is what one of our own functions complains about: safe to show,
// unlike the text that text/template makes of it.
type ownFailure struct {
	kind   error
	reason string
}

// Error implements error.
func (f *ownFailure) Error() string { return f.reason }

// isAuthors says whether a text stands in the template, and may thus be shown: an
// argument may as well have come out of a secret.
func (e *execution) isAuthors(text string) bool {
	return strings.Contains(e.template.Text, text)
}

// problem is what is wrong with an argument of a function.
type problem struct {
	// value is shown before what only if the template's author wrote it.
	value, what string
}

func (p *problem) text(isAuthors func(string) bool) string {
	if p.value != "" && isAuthors(p.value) {
		return fmt.Sprintf("%q %s", p.value, p.what)
	}
	return "the argument " + p.what
}
