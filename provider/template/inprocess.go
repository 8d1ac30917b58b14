package template

import "context"

// InProcess runs templates where it is called. It holds no state and may be used
// concurrently.
type InProcess struct{}

// Render is the function Render. It runs to its end, whatever becomes of ctx.
func (InProcess) Render(_ context.Context, t Template, answers Answers) (Result, error) {
	return Render(t, answers)
}
