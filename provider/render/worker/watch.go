package worker

import (
	"context"
	"fmt"
	"time"
)

// watch sees to it that a template keeps its limits.
type watch struct {
	lane *lane
	// cpuTime is the processor time that the worker has used so far, and resident
	// its memory in bytes.
	cpuTime  func() time.Duration
	resident func() int64
}

// How often a worker is looked at.
const (
	minWait = 10 * time.Millisecond
	maxWait = 100 * time.Millisecond
)

// until returns nil when done is closed, or why the worker must be killed.
func (w *watch) until(ctx context.Context, done <-chan struct{}) error {
	start := w.cpuTime()
	wall := time.NewTimer(w.lane.wall)
	defer wall.Stop()
	// A worker runs on one processor, so it cannot use more than what passes.
	look := time.NewTimer(min(w.lane.cpu, maxWait))
	defer look.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for a template to be rendered: %w", ctx.Err())
		case <-wall.C:
			return w.lane.late
		case <-look.C:
		}
		used := w.cpuTime() - start
		if used >= w.lane.cpu {
			return w.lane.breach
		}
		if w.resident() > residentLimit {
			return errMemory
		}
		look.Reset(min(max(w.lane.cpu-used, minWait), maxWait))
	}
}
