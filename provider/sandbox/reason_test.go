package sandbox

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

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
	first := pool.idle[0]
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
