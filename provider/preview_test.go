package provider

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/vaultmount/vaultmount/provider/render"
)

// countedRenderer counts how often a template runs.
type countedRenderer struct{ runs atomic.Int32 }

func (r *countedRenderer) Render(ctx context.Context, t render.Template, answers render.Answers) (render.Result, error) {
	r.runs.Add(1)
	return render.InProcess{}.Render(ctx, t, answers)
}

// A pod that starts waits for no more runs of its templates than they need.
func TestOpenRunsTemplatesNoMoreThanNeedBe(t *testing.T) {
	for name, c := range map[string]struct {
		template string
		runs     int32
	}{
		"plain":                        {staticTemplate, 0},
		"plain before the answer":      {`{{ with $s := secret "kv/static" }}{{ $s.Data.value }}{{ end }}`, 1},
		"not plain":                    {`{{ $s := secret "kv/static" }}{{ $s.Data.value }}`, 2},
		"one that no secret can mend":  {`{{ with secret "kv/static" }}{{ key "x" }}{{ end }}`, 1},
		"one secret after another one": {`{{ with secret "kv/static" }}{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}{{ end }}`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			counted := &countedRenderer{}
			b.renderer = counted
			if _, err := b.Open(t.Context(), b.request("v", c.template)); err != nil && !errors.Is(err, ErrTemplate) {
				t.Fatal(err)
			}
			if got := counted.runs.Load(); got != c.runs {
				t.Errorf("it ran %d times, want %d", got, c.runs)
			}
		})
	}
}
