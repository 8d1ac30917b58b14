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
	tests := map[string]struct {
		watch watch
		want  error
	}{
		"processor time":    {watch{&lane{cpu: 5 * time.Second, breach: errSlow, wall: time.Hour}, spinning(), none}, errSlow},
		"memory":            {watch{&lane{cpu: time.Second, wall: time.Hour}, stopped, func() int64 { return residentLimit + 1 }}, errMemory},
		"no processor time": {watch{&lane{cpu: time.Second, wall: 3 * maxWait, late: render.ErrUnavailable}, stopped, none}, render.ErrUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := test.watch.until(t.Context(), nil); !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	w := watch{lane: &lane{cpu: time.Hour, wall: time.Hour}, cpuTime: func() time.Duration { return 0 }}
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
