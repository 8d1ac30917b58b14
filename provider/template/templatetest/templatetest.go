// Package templatetest executes templates without a confined process, for tests. It
// imports provider/template.
package templatetest

import (
	"context"

	"github.com/vaultmount/vaultmount/provider/template"
)

// Renderer executes templates where it is called, as sandbox.Pool does in a process. It
// holds no state and may be used concurrently.
type Renderer struct{}

// Render executes the templates in order. It runs to its end, whatever becomes of ctx.
func (Renderer) Render(_ context.Context, templates []template.Template, values template.Values) ([]template.Result, error) {
	results := make([]template.Result, len(templates))
	for i, t := range templates {
		var err error
		if results[i], err = template.Execute(t, values); err != nil {
			return nil, &template.FileError{Name: t.Name, Err: err}
		}
	}
	return results, nil
}
