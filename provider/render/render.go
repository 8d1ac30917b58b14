// Package render turns templates into bytes, in consul-template's language as
// the Vault Agent runs it.
//
// It gets data and returns bytes: it never asks Vault, never opens a file, and
// reads nothing of the node it runs on. What a template lacks comes back as a
// list of queries; the caller answers them and renders again. Errors hold what
// the author of the template wrote, and never a value that came from Vault.
package render

import (
	"errors"
	"fmt"

	"github.com/hashicorp/consul-template/template"
	"github.com/hashicorp/vault/api"
)

// ErrInvalid is a template that no data can make good, or a function that the
// driver does not offer to templates.
var ErrInvalid = errors.New("invalid template")

// ErrData is a template that does not fit the data it got.
var ErrData = errors.New("the template cannot be rendered")

// Template is the program of one file.
type Template struct {
	// Name is the file, for messages.
	Name string
	// Text is not empty.
	Text string
	// LeftDelim and RightDelim are empty for "{{" and "}}".
	LeftDelim, RightDelim string
	// ErrorOnMissingKey refuses a key that a map lacks, in place of "<no value>".
	ErrorOnMissingKey bool
}

// Answers are what Vault said to the queries of templates.
type Answers map[Query]Answer

// Answer holds a secret, or the names of a list. Both are empty where Vault
// answered a write with nothing.
type Answer struct {
	Secret *api.Secret
	Names  []string
}

// Result is what a template became.
type Result struct {
	// Output is complete only when nothing is missing.
	Output []byte
	// Missing are the queries that answers lacked, in the template's order.
	Missing []Query
	// Used are all queries that the template asked.
	Used []Query
}

// Render runs a template with the answers at hand. The error is ErrInvalid or
// ErrData.
func Render(t Template, answers Answers) (Result, error) {
	if err := Check(t); err != nil {
		return Result{}, err
	}
	asker := &asker{answers: answers}
	program, err := template.NewTemplate(&template.NewTemplateInput{
		Contents:         t.Text,
		LeftDelim:        t.LeftDelim,
		RightDelim:       t.RightDelim,
		ErrMissingKey:    t.ErrorOnMissingKey,
		ExtFuncMap:       asker.functions(),
		FunctionDenylist: deniedFunctions(),
	})
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	executed, err := program.Execute(&template.ExecuteInput{Brain: template.NewBrain()})
	if err != nil {
		return Result{}, executionFailure(t, err, asker.failure)
	}
	return Result{Output: executed.Output, Missing: asker.missing, Used: asker.used}, nil
}
