package sandbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
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
		"CPU time":    {watch{Limits{CPU: 5 * time.Second, Wall: time.Hour}, spinning(), none}, errCPU},
		"memory":      {watch{Limits{CPU: time.Second, Wall: time.Hour}, stopped, func() int64 { return residentLimit + 1 }}, errMemory},
		"no CPU time": {watch{Limits{CPU: time.Second, Wall: 3 * maxWait}, stopped, none}, template.ErrUnavailable},
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

// The kernel bounds the memory of a worker that does what it likes: the bound does not
// depend on how much the runtime of Go reserves, nor on when the worker is looked at.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	worker, err := startProcess(t.Context(), program, []string{Command}, firstID)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.end()
	before, _, err := worker.memory()
	if err != nil {
		t.Fatal(err)
	}
	received := newReceiver(template.Template{Name: attackPrefix + fillName})
	if err := worker.converse(received.request(t), received.read); err != nil {
		t.Fatal(err)
	}
	after, resident, err := worker.memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s; it has grown by %d MiB of addresses, and has %d MiB of memory", received.output(), (after-before)>>20, resident>>20)
	if after-before > addressLimit || resident > residentLimit {
		t.Errorf("it has grown by %d bytes of addresses, and has %d bytes of memory", after-before, resident)
	}
	if after-before < addressLimit/2 {
		t.Errorf("it could take only %d bytes of %d", after-before, addressLimit)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	w := watch{limits: Limits{CPU: time.Hour, Wall: time.Hour}, cpuTime: func() time.Duration { return 0 }}
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
