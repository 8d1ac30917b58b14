package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/template"
)

// The driver may fail to wait for a process, and does not know then how it ended.
func TestExitReasonWithoutState(t *testing.T) {
	t.Parallel()
	p := &worker{command: &exec.Cmd{}}
	if err := p.exitReason(io.ErrUnexpectedEOF); !errors.Is(err, errKilled) {
		t.Errorf("got %v", err)
	}
}

type panickingReader struct{}

func (panickingReader) Read([]byte) (int, error) { panic("a secret") }

func TestPanicOnReplyIsAnError(t *testing.T) {
	t.Parallel()
	requests, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer requests.Close()
	p := &worker{requests: requests, replies: panickingReader{}}
	if err := p.send(nil, func(r io.Reader) error {
		_, err := r.Read(nil)
		return err
	}); !errors.Is(err, errNonsense) {
		t.Errorf("got %v", err)
	}
}

// A call that waits for its turn takes no memory for its request. Not parallel: it counts
// what the whole process allocates.
func TestRequestIsMadeInItsTurn(t *testing.T) {
	pool := New(newLogger(t), Config{Program: "/nowhere"})
	for _, tenant := range []string{"a", "b", "c"} {
		if err := pool.limiter.Acquire(t.Context(), tenant, fairqueue.Foreground, 1); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	values := template.Values{{Verb: template.Read, Path: "kv"}: {Names: []string{strings.Repeat("x", requestLimit/2)}}}
	used := cost.Measure(func() {
		if _, err := render(pool, ctx, file("x"), values); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	if used.Allocated > requestLimit/8 {
		t.Errorf("a call that waits allocates %d bytes", used.Allocated)
	}
}

// What ends a template, with readings of the kernel that a test can foresee.
func TestMonitor(t *testing.T) {
	t.Parallel()
	none := func() int64 { return 0 }
	stopped := func() time.Duration { return time.Second }
	spinning := func() func() time.Duration {
		var used time.Duration
		return func() time.Duration { used += time.Second; return used }
	}
	tests := map[string]struct {
		monitor monitor
		want    Reason
	}{
		"CPU time":    {monitor{Limits{CPU: 5 * time.Second, Wall: time.Hour}, spinning(), none}, CPU},
		"memory":      {monitor{Limits{CPU: time.Second, Wall: time.Hour}, stopped, func() int64 { return residentLimit + 1 }}, Memory},
		"no CPU time": {monitor{Limits{CPU: time.Second, Wall: 3 * maxWait}, stopped, none}, Wall},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := test.monitor.wait(t.Context(), nil); reasonOf(err) != test.want {
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
	worker, err := startWorker(t.Context(), program, []string{Command}, firstID)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.end()
	before, _, err := worker.memory()
	if err != nil {
		t.Fatal(err)
	}
	asked := template.Template{Name: attackPrefix + fillName}
	received, output := receive(asked)
	if err := worker.send(encode(t, asked), received.read); err != nil {
		t.Fatal(err)
	}
	after, resident, err := worker.memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s; it has grown by %d MiB of addresses, and has %d MiB of memory", output(), (after-before)>>20, resident>>20)
	if after-before > addressLimit || resident > residentLimit {
		t.Errorf("it has grown by %d bytes of addresses, and has %d bytes of memory", after-before, resident)
	}
	if after-before < addressLimit/2 {
		t.Errorf("it could take only %d bytes of %d", after-before, addressLimit)
	}
}

func TestMonitorEnds(t *testing.T) {
	t.Parallel()
	w := monitor{limits: Limits{CPU: time.Hour, Wall: time.Hour}, cpuTime: func() time.Duration { return 0 }}
	done := make(chan struct{})
	close(done)
	if err := w.wait(t.Context(), done); err != nil {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.wait(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Each worker that is ended before its time is counted under what ended it; one that
// behaves, or that is ended because nobody waits, is not.
func TestReasons(t *testing.T) {
	t.Parallel()
	limits := generous()
	limits.CPU = 300 * time.Millisecond
	pool := startPool(t, limits)
	var got []Reason
	pool.config.Killed = func(reason Reason) { got = append(got, reason) }
	for _, text := range []string{
		"nothing",
		endless,
		`{{ sprig_repeat 200000000 "x" }}`,
		`{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`,
	} {
		_, _ = render(pool, t.Context(), file(text), nil) // TestLimits has the errors
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = render(pool, ctx, file("nobody waits"), nil)
	if want := []Reason{CPU, Memory, Crash}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWorkerThatSomethingElseKillsIsCounted(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	killed := make(chan Reason, attempts)
	pool.config.Killed = func(reason Reason) { killed <- reason }
	first := useFirst(t, pool)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { _, _ = render(pool, ctx, file(endless), nil) })
	waitUntil(t, pool.isBusy)
	first.kill()
	if reason := <-killed; reason != Killed {
		t.Errorf("it counts as %s", reason)
	}
	cancel()
	group.Wait()
}
