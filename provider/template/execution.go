package template

import (
	"fmt"
	"strings"
	"text/template/parse"
	"unicode/utf8"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// execution is one run of a template: it gives answers, and notes what is asked
// and written.
type execution struct {
	template      Template
	answers       Values
	used, missing []Dependency
	asked         map[Dependency]bool // those in used
	asksTooMuch   bool                // which no answer makes good
	// secrets are the copies of answers that this run may change.
	secrets map[Dependency]any
	files   []WrittenFile
	layout  layout // of files
	failure *ownFailure
}

// execute runs a template that was checked, of which trees are what it was parsed to.
func execute(t Template, trees map[string]*parse.Tree, answers Values) (Result, error) {
	e := &execution{template: t, answers: answers, secrets: map[Dependency]any{}}
	run := e.runAlone
	if callsLibrary(trees) {
		run = e.runWithLibrary
	}
	output, err := run(trees)
	switch {
	case err != nil && (len(e.missing) == 0 || e.asksTooMuch):
		return Result{}, executionFailure(t, err, e.failure)
	case err != nil:
		// What failed may have worked on an answer that is not there yet.
		return Result{Missing: e.missing, Used: e.used}, nil
	}
	if len(e.missing) > 0 {
		return Result{Missing: e.missing, Used: e.used}, nil
	}
	return Result{Output: output, Files: e.files, Used: e.used}, nil
}

// ask returns the answer to a query of a function, or notes that it is missing.
func (e *execution) ask(function string, query Dependency) (answer Value, ok bool, err error) {
	answer, ok = e.answers[query]
	if e.asked[query] {
		return answer, ok, nil
	}
	if !utf8.ValidString(query.Path) {
		return Value{}, false, e.fail("%s: the path is not UTF-8", function)
	}
	err = limits.VaultPathBytes.Check(len(query.Path))
	if err == nil {
		err = limits.Dependencies.Check(len(e.used) + 1)
	}
	if err != nil {
		e.asksTooMuch = true
		return Value{}, false, e.fail("%s: %v; ask for fewer or shorter paths", function, err)
	}
	if e.asked == nil {
		e.asked = map[Dependency]bool{}
	}
	e.asked[query] = true
	e.used = append(e.used, query)
	if !ok {
		e.missing = append(e.missing, query)
	}
	return answer, ok, nil
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
		return fmt.Sprintf("%s %s", quote(p.value), p.what)
	}
	return "the argument " + p.what
}
