package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/template"
)

// roundTrip sends a request and has receive read the replies, while it enforces the limits.
// After an error the worker is of no use, except for a failure that it reported itself.
func (w *worker) roundTrip(ctx context.Context, payload []byte, limits Limits, receive func(io.Reader) error) error {
	var group sync.WaitGroup
	var exceeded error
	done := make(chan struct{})
	group.Go(func() {
		m := monitor{limits: limits, cpuTime: w.cpuTime, resident: w.resident}
		if exceeded = m.wait(ctx, done); exceeded != nil {
			w.kill() // which ends the write and the reads below
		}
	})
	err := w.send(payload, receive)
	close(done)
	group.Wait()
	switch {
	case exceeded != nil:
		return exceeded
	case err == nil, isReported(err):
		return err
	}
	w.end()
	return w.exitReason(err)
}

// send reads data that may be hostile: a panic on it is an error of this call.
func (w *worker) send(payload []byte, receive func(io.Reader) error) (err error) {
	defer func() {
		if recover() != nil {
			err = errNonsense
		}
	}()
	if err := writeFrame(w.requests, payload, requestLimit); err != nil {
		return err
	}
	return receive(w.replies)
}

// exitReason says why there was no reply. A worker that exited had its reason in the
// template. One that was killed by something else than the monitor had not.
func (w *worker) exitReason(err error) error {
	stderr := string(w.stderr)
	switch {
	case errors.Is(err, template.ErrInvalid):
		return err
	case strings.Contains(stderr, "out of memory"), strings.Contains(stderr, "cannot allocate memory"):
		return errMemory
	case strings.Contains(stderr, "stack overflow"):
		return errStack
	case w.command.ProcessState != nil && w.command.ProcessState.Exited():
		return errCrash
	}
	return errKilled
}

// monitor enforces the limits of one call.
type monitor struct {
	limits Limits
	// cpuTime is the CPU time that the worker has used so far, and resident its memory in
	// bytes.
	cpuTime  func() time.Duration
	resident func() int64
}

// How often a worker is checked. A worker that has escaped its other limits takes some
// 50 MiB of memory in maxWait.
const (
	minWait = 10 * time.Millisecond
	maxWait = 25 * time.Millisecond
)

// wait returns nil when done is closed, or why the worker must be killed.
func (m *monitor) wait(ctx context.Context, done <-chan struct{}) error {
	start := m.cpuTime()
	wall := time.NewTimer(m.limits.Wall)
	defer wall.Stop()
	// A worker runs on one processor, so it cannot use more than the time that passes.
	check := time.NewTimer(min(m.limits.CPU, maxWait))
	defer check.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for a template to be rendered: %w", ctx.Err())
		case <-wall.C:
			text := fmt.Sprintf("rendering has not ended in %s, and got less than %s of CPU time; the node is busy", m.limits.Wall, m.limits.CPU)
			return &workerError{Wall, template.ErrUnavailable, text}
		case <-check.C:
		}
		used := m.cpuTime() - start
		if used >= m.limits.CPU {
			return newWorkerError(CPU, "rendering takes more than %s of CPU time", m.limits.CPU)
		}
		if m.resident() > residentLimit {
			return errMemory
		}
		check.Reset(min(max(m.limits.CPU-used, minWait), maxWait))
	}
}

// cpuTime reads the clock that the kernel has for each process (see clock_getcpuclockid).
func (w *worker) cpuTime() time.Duration {
	const processClock = 2 // of CPUCLOCK_SCHED, what the scheduler counts
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^w.command.Process.Pid<<3|processClock), &used); err != nil {
		return 0 // it has exited, and the read fails
	}
	return time.Duration(used.Nano())
}

// resident returns the memory of the process in bytes, 0 if it has exited.
func (w *worker) resident() int64 {
	_, resident, _ := w.memory()
	return resident
}

// memory returns the addresses and the memory in bytes that the process has.
func (w *worker) memory() (size, resident int64, err error) {
	var text [128]byte
	n, err := w.statm.ReadAt(text[:], 0)
	if n == 0 {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(string(text[:n]), &size, &resident); err != nil {
		return 0, 0, err
	}
	page := int64(os.Getpagesize())
	return size * page, resident * page, nil
}
