package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
)

// watch sees to it that a template keeps its limits.
type watch struct {
	limits Limits
	// cpuTime is the CPU time that the worker has used so far, and resident its
	// memory in bytes.
	cpuTime  func() time.Duration
	resident func() int64
}

// How often a worker is looked at. A worker that has escaped its other limits takes
// some 50 MiB of memory in maxWait.
const (
	minWait = 10 * time.Millisecond
	maxWait = 25 * time.Millisecond
)

// until returns nil when done is closed, or why the worker must be killed.
func (w *watch) until(ctx context.Context, done <-chan struct{}) error {
	start := w.cpuTime()
	wall := time.NewTimer(w.limits.Wall)
	defer wall.Stop()
	// A worker runs on one processor, so it cannot use more than what passes.
	look := time.NewTimer(min(w.limits.CPU, maxWait))
	defer look.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for a template to be rendered: %w", ctx.Err())
		case <-wall.C:
			return fmt.Errorf("%w: %w in %s, and got less than %s of CPU time; the node is busy", template.ErrUnavailable, errWall, w.limits.Wall, w.limits.CPU)
		case <-look.C:
		}
		used := w.cpuTime() - start
		if used >= w.limits.CPU {
			return fmt.Errorf("%w: %w than %s of CPU time", template.ErrInvalid, errCPU, w.limits.CPU)
		}
		if w.resident() > residentLimit {
			return errMemory
		}
		look.Reset(min(max(w.limits.CPU-used, minWait), maxWait))
	}
}
