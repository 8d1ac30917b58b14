package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/vaultmount/vaultmount/provider/render"
)

// watch sees to it that a template keeps its time limits.
type watch struct {
	limits Limits
	// cpuTime is the processor time that the worker has used so far, and resident
	// its memory in bytes.
	cpuTime  func() time.Duration
	resident func() int64
	// mayBeSlow asks for leave to go on, once.
	mayBeSlow func() bool
}

// How often a worker is looked at.
const (
	minWait = 10 * time.Millisecond
	maxWait = 100 * time.Millisecond
)

// until returns nil when done is closed, or why the worker must be killed.
func (w *watch) until(ctx context.Context, done <-chan struct{}) error {
	start := w.cpuTime()
	wall := time.NewTimer(w.limits.Wall)
	defer wall.Stop()
	limit := min(w.limits.Slow, w.limits.CPU)
	// A worker runs on one processor, so it cannot use more than what passes.
	look := time.NewTimer(min(limit, maxWait))
	defer look.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for a template to be rendered: %w", ctx.Err())
		case <-wall.C:
			return fmt.Errorf("%w: rendering has not ended in %s, in which it got %s of processor time; the node is busy",
				render.ErrUnavailable, w.limits.Wall, (w.cpuTime() - start).Round(time.Millisecond))
		case <-look.C:
		}
		used := w.cpuTime() - start
		if used >= w.limits.CPU {
			return fmt.Errorf("%w: rendering takes more than %s of processor time", render.ErrInvalid, w.limits.CPU)
		}
		if used >= limit {
			if !w.mayBeSlow() {
				return fmt.Errorf("%w: rendering takes more than %s of processor time, and too many templates on this node do", render.ErrUnavailable, w.limits.Slow)
			}
			limit = w.limits.CPU
		}
		if w.resident() > residentLimit {
			return errMemory
		}
		look.Reset(min(max(limit-used, minWait), maxWait))
	}
}
