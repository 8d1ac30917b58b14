package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/vaultmount/vaultmount/provider"
	render "github.com/vaultmount/vaultmount/provider/template"
)

// timedRenderer counts what another renderer does.
type timedRenderer struct {
	provider.Renderer

	metrics *Recorder
}

// Renderer returns a renderer whose runs are counted.
func (m *Recorder) Renderer(next provider.Renderer) provider.Renderer {
	return timedRenderer{next, m}
}

// Render implements provider.Renderer.
func (r timedRenderer) Render(ctx context.Context, t render.Template, answers render.Answers) (render.Result, error) {
	start := time.Now()
	rendered, err := r.Renderer.Render(ctx, t, answers)
	r.metrics.renderDuration.Observe(time.Since(start).Seconds())
	r.metrics.renders.WithLabelValues(renderOutcome(err)).Inc()
	return rendered, err
}

func renderOutcomes() []string { return []string{resultOK, "refused", "data", "unavailable"} }

func renderOutcome(err error) string {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, render.ErrInvalid):
		return "refused"
	case errors.Is(err, render.ErrData):
		return "data"
	}
	return "unavailable"
}
