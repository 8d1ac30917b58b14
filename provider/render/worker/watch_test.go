package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/render"
)

// What ends a template, with readings of the kernel that a test can foresee.
func TestWatch(t *testing.T) {
	t.Parallel()
	none := func() int64 { return 0 }
	stopped := func() time.Duration { return time.Second }
	spinning := func() func() time.Duration {
		var used time.Duration
		return func() time.Duration { used += time.Second; return used }
	}
	limits := Limits{CPU: 5 * time.Second, Slow: time.Second, Wall: time.Hour}
	tests := map[string]struct {
		watch watch
		kind  error
	}{
		"processor time":    {watch{limits, spinning(), none, func() bool { return true }}, render.ErrInvalid},
		"memory":            {watch{limits, stopped, func() int64 { return residentLimit + 1 }, nil}, render.ErrInvalid},
		"one of many":       {watch{limits, spinning(), none, func() bool { return false }}, render.ErrUnavailable},
		"no processor time": {watch{Limits{CPU: time.Second, Slow: time.Second, Wall: 3 * maxWait}, stopped, none, nil}, render.ErrUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := test.watch.until(t.Context(), nil); !errors.Is(err, test.kind) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	w := watch{limits: Limits{}.withDefaults(), cpuTime: func() time.Duration { return 0 }}
	done := make(chan struct{})
	close(done)
	if err := w.until(t.Context(), done); err != nil {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.until(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
