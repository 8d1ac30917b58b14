package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/template"
)

var errMemory = fmt.Errorf("%w: it needs more than %d MiB of memory", template.ErrInvalid, memoryLimit>>20)

var (
	errStack  = fmt.Errorf("%w: it is nested too deeply, or calls itself without an end", template.ErrInvalid)
	errCrash  = fmt.Errorf("%w: it makes the renderer crash", template.ErrInvalid)
	errKilled = errors.New("the render worker was killed")
)

// exchange sends a request and has receive read the replies, under a watch. After an
// error the worker is of no use, except for a failure that it has reported itself.
func (p *process) exchange(ctx context.Context, payload []byte, watch *watch, receive func(io.Reader) error) error {
	var group sync.WaitGroup
	var breach error
	done := make(chan struct{})
	group.Go(func() {
		if breach = watch.until(ctx, done); breach != nil {
			p.kill() // which ends the write and the reads below
		}
	})
	err := p.converse(payload, receive)
	close(done)
	group.Wait()
	switch {
	case breach != nil:
		return breach
	case err == nil, isReported(err):
		return err
	}
	p.end()
	return p.cause(err)
}

// converse reads data that may be hostile: a panic on it is an error of this call.
func (p *process) converse(payload []byte, receive func(io.Reader) error) (err error) {
	defer func() {
		if recover() != nil {
			err = errNonsense
		}
	}()
	if err := writeFrame(p.requests, payload, requestLimit); err != nil {
		return err
	}
	return receive(p.replies)
}

// cause says why there was no reply. A worker that ended by itself had its reason
// in the template; one that was killed, by something else than the watch, had not.
func (p *process) cause(err error) error {
	exited := false
	if p.state != nil { // nil if waiting for the process has failed
		status, _ := p.state.Sys().(syscall.WaitStatus)
		exited = status.Exited()
	}
	switch {
	case errors.Is(err, template.ErrInvalid):
		return err
	case p.words.contain("out of memory", "cannot allocate memory"):
		return errMemory
	case p.words.contain("stack overflow"):
		return errStack
	case exited:
		return errCrash
	case errors.Is(err, errTooLong), errors.Is(err, errNonsense):
		return fmt.Errorf("%w: %w", template.ErrInvalid, err)
	}
	return errKilled
}

// cpuTime is the CPU time that the process has used, by the clock that the
// kernel has for each process (see clock_getcpuclockid).
func (p *process) cpuTime() time.Duration {
	const processClock = 2 // of CPUCLOCK_SCHED, what the scheduler counts
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|processClock), &used); err != nil {
		return 0 // it has exited, which the read notices
	}
	return time.Duration(used.Nano())
}

// resident is the memory in bytes that the process has: none if it has exited,
// which the read notices.
func (p *process) resident() int64 {
	_, resident, _ := p.memory()
	return resident
}

// memory returns the addresses and the memory in bytes that the process has.
func (p *process) memory() (size, resident int64, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/statm")
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, 0, err
	}
	page := int64(os.Getpagesize())
	return size * page, resident * page, nil
}
