package template

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"

	library "github.com/hashicorp/consul-template/template"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// execution is one run of a template: its functions return values, and record what they
// ask for and write.
type execution struct {
	template      Template
	values        Values
	used, missing []Dependency
	asked         map[Dependency]bool // those in used
	exceedsLimit  bool                // an error that no value corrects
	// secrets are copies of values, which the template may change.
	secrets map[Dependency]any
	files   []WrittenFile
	layout  layout // of files
	failure *functionError
}

// Execute runs a template with the values at hand, and does not change them. The error
// is ErrInvalid or ErrData. The result is the same for the same arguments, except for
// functions that tell the time or make random values.
func Execute(t Template, values Values) (Result, error) {
	p, err := parseAndCheck(t)
	if err != nil {
		return Result{}, err
	}
	e := newExecution(t, values)
	execute := e.executeStd
	if p.callsLibrary() {
		execute = e.executeConsulTemplate
	}
	output, err := execute(p.trees)
	switch {
	case err != nil && (len(e.missing) == 0 || e.exceedsLimit):
		return Result{}, executionError(t, err, e.failure)
	case len(e.missing) > 0: // an error may be due to a value that is missing
		return Result{Missing: e.missing, Used: e.used}, nil
	}
	return Result{Output: output, Files: e.files, Used: e.used}, nil
}

func newExecution(t Template, values Values) *execution {
	return &execution{template: t, values: values, asked: map[Dependency]bool{}, secrets: map[Dependency]any{}}
}

// executeStd executes the trees as consul-template does, but without its three hundred
// functions: to collect them takes ten times as long as a usual execution.
func (e *execution) executeStd(trees map[string]*parse.Tree) ([]byte, error) {
	missingKey := "missingkey=zero"
	if e.template.ErrorOnMissingKey {
		missingKey = "missingkey=error"
	}
	program := template.New("").Funcs(e.functions()).Option(missingKey)
	for name, tree := range trees {
		if _, err := program.AddParseTree(name, tree); err != nil {
			return nil, err
		}
	}
	var output bytes.Buffer
	if err := program.Execute(&output, nil); err != nil {
		return nil, err
	}
	return output.Bytes(), nil
}

// executeConsulTemplate executes the template by consul-template.
func (e *execution) executeConsulTemplate(map[string]*parse.Tree) ([]byte, error) {
	program, err := library.NewTemplate(&library.NewTemplateInput{
		Contents:      e.template.Text,
		LeftDelim:     e.template.LeftDelim,
		RightDelim:    e.template.RightDelim,
		ErrMissingKey: e.template.ErrorOnMissingKey,
		ExtFuncMap:    e.overrides(),
	})
	if err != nil {
		return nil, err
	}
	executed, err := program.Execute(&library.ExecuteInput{Brain: library.NewBrain()})
	if err != nil {
		return nil, err
	}
	return executed.Output, nil
}

// functions are this package's own, see overriddenFunctions.
func (e *execution) functions() map[string]any {
	return map[string]any{
		"secret":       e.secret,
		"secrets":      e.list,
		"pkiCert":      e.pkiCert,
		"env":          func(name string) (string, error) { return e.variable("env", name) },
		"mustEnv":      func(name string) (string, error) { return e.variable("mustEnv", name) },
		"envOrDefault": e.envOrDefault,
		"file":         e.file,
		"writeToFile":  e.writeToFile,
		"loop":         e.loop,
	}
}

// overrides replace functions of consul-template. The check has rejected the denied ones
// already. They are overridden as well, so that a call that it missed does nothing;
// consul-template's own denylist takes longer than an execution.
func (e *execution) overrides() map[string]any {
	functions := e.functions()
	for _, name := range deniedFunctions() {
		functions[name] = func(...any) (any, error) { return nil, e.fail("the function %s is not available", name) }
	}
	return functions
}

// ask returns the value of a dependency of a function, or records that it is missing.
func (e *execution) ask(function string, d Dependency) (value Value, ok bool, err error) {
	value, ok = e.values[d]
	if e.asked[d] {
		return value, ok, nil
	}
	if !utf8.ValidString(d.Path) {
		return Value{}, false, e.fail("%s: the path is not UTF-8", function)
	}
	err = limits.VaultPathBytes.Check(len(d.Path))
	if err == nil {
		err = limits.Dependencies.Check(len(e.used) + 1)
	}
	if err != nil {
		e.exceedsLimit = true
		return Value{}, false, e.fail("%s: %v; ask for fewer or shorter paths", function, err)
	}
	e.asked[d] = true
	e.used = append(e.used, d)
	if !ok {
		e.missing = append(e.missing, d)
	}
	return value, ok, nil
}

// functionError is an error of this package's own functions. It is safe to show, unlike
// the text that text/template makes of it.
type functionError struct {
	kind   error
	reason string
}

// Error implements error.
func (f *functionError) Error() string { return f.reason }

// fail reports what the author has to correct in the template.
func (e *execution) fail(format string, arguments ...any) error {
	e.failure = &functionError{ErrInvalid, fmt.Sprintf(format, arguments...)}
	return e.failure
}

// failOnData reports what is correct with other values or for another pod.
func (e *execution) failOnData(format string, arguments ...any) error {
	e.failure = &functionError{ErrData, fmt.Sprintf(format, arguments...)}
	return e.failure
}

// failOnArgument is fail for an argument.
func (e *execution) failOnArgument(function string, err *argumentError) error {
	return e.fail("%s: %s", function, err.text(e.isLiteral(err.value)))
}

// isLiteral reports whether a text is in the template, so that an error may show it: any
// other text may come from a secret.
func (e *execution) isLiteral(text string) bool { return strings.Contains(e.template.Text, text) }

// argumentError is what is wrong with an argument of a function.
type argumentError struct{ value, what string }

func (a *argumentError) text(showsValue bool) string {
	if showsValue && a.value != "" {
		return fmt.Sprintf("%s %s", quote(a.value), a.what)
	}
	return "the argument " + a.what
}

// callsLibrary reports whether a template calls a function that consul-template has and
// this package has not. Most templates do not.
func (p parsed) callsLibrary() bool {
	for name := range p.functions {
		if !slices.Contains(overriddenFunctions(), name) && !slices.Contains(builtinFunctions(), name) {
			return true
		}
	}
	return false
}
