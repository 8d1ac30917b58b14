package provider

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/template/templatetest"
)

// countedRenderer counts the round trips.
type countedRenderer struct{ runs atomic.Int32 }

func (r *countedRenderer) Render(ctx context.Context, templates []render.Template, answers render.Values) ([]render.Result, error) {
	r.runs.Add(1)
	return templatetest.Renderer{}.Render(ctx, templates, answers)
}

// A pod that starts waits for no more round trips to the renderer than its secrets need.
func TestOpenRendersNoMoreThanNeedBe(t *testing.T) {
	for name, c := range map[string]struct {
		template string
		runs     int32
	}{
		"one secret":                   {staticTemplate, 2},
		"no secret":                    {`x`, 1},
		"one that no secret can mend":  {`{{ with secret "kv/static" }}{{ key "x" }}{{ end }}`, 1},
		"one secret after another one": {`{{ with secret "kv/static" }}{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}{{ end }}`, 3},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			counted := &countedRenderer{}
			b.renderer = counted
			if _, err := b.Open(t.Context(), b.request("v", c.template, c.template)); err != nil && !errors.Is(err, ErrTemplate) {
				t.Fatal(err)
			}
			if got := counted.runs.Load(); got != c.runs {
				t.Errorf("it ran %d times, want %d", got, c.runs)
			}
		})
	}
}

// tenantRenderer keeps whose templates ran.
type tenantRenderer struct {
	mutex   sync.Mutex
	tenants []string
}

func (r *tenantRenderer) Render(ctx context.Context, templates []render.Template, answers render.Values) ([]render.Result, error) {
	r.mutex.Lock()
	r.tenants = append(r.tenants, fairqueue.Tenant(ctx))
	r.mutex.Unlock()
	return templatetest.Renderer{}.Render(ctx, templates, answers)
}

// A process runs templates of one namespace alone, so each run has to name it: when a
// pod starts, and at each refresh.
func TestRendererIsToldTheNamespace(t *testing.T) {
	b := newBench(t)
	renderer := &tenantRenderer{}
	b.renderer = renderer
	b.open(b.request("v", `{{ $s := secret "database/creds/app" }}{{ $s.Data.username }}`))
	atStart := len(renderer.tenants)
	b.pass(24*time.Hour, func() {})
	renderer.mutex.Lock()
	defer renderer.mutex.Unlock()
	if atStart == 0 || len(renderer.tenants) == atStart {
		t.Fatalf("%d runs at the start, %d in all", atStart, len(renderer.tenants))
	}
	for _, tenant := range renderer.tenants {
		if tenant != "default" {
			t.Errorf("a template ran for the tenant %q", tenant)
		}
	}
}

// A call that has ended takes no CPU time for the templates that are left.
func TestTemplatesAreNotRunForACallThatHasEnded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	counting := &countedRenderer{}
	b.Provider.renderer = counting
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Open(ctx, b.request("v", staticTemplate, "{{ 1 }}")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := counting.runs.Load(); got != 0 {
		t.Errorf("%d templates were run", got)
	}
}
