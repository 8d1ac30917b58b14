package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/render"
)

var errMemory = fmt.Errorf("%w: it needs more than %d MiB of memory", render.ErrInvalid, memoryLimit>>20)

var (
	errStack  = fmt.Errorf("%w: it is nested too deeply, or calls itself without an end", render.ErrInvalid)
	errCrash  = fmt.Errorf("%w: it makes the renderer crash", render.ErrInvalid)
	errKilled = errors.New("the render worker was killed")
)

// exchange sends a request and reads the reply under a watch. After an error the
// worker is of no use any more.
func (p *process) exchange(ctx context.Context, payload []byte, watch *watch) (reply, error) {
	var group sync.WaitGroup
	var breach error
	done := make(chan struct{})
	group.Go(func() {
		if breach = watch.until(ctx, done); breach != nil {
			p.kill() // which ends the read and the write below
		}
	})
	answer, err := p.converse(payload)
	close(done)
	group.Wait()
	if breach != nil {
		return reply{}, breach
	}
	if err != nil {
		p.end()
		return reply{}, p.cause(err)
	}
	return answer, nil
}

func (p *process) converse(payload []byte) (reply, error) {
	if err := writeFrame(p.requests, payload, requestLimit); err != nil {
		return reply{}, err
	}
	payload, err := readFrame(p.replies, replyLimit)
	if err != nil {
		return reply{}, err
	}
	return decodeReply(payload)
}

// cause says why there was no reply. A worker that ended by itself had its reason
// in the template; one that was killed, by something else than the watch, had not.
func (p *process) cause(err error) error {
	status, _ := p.state.Sys().(syscall.WaitStatus)
	switch {
	case p.words.contain("out of memory", "cannot allocate memory"):
		return errMemory
	case p.words.contain("stack overflow"):
		return errStack
	case status.Exited():
		return errCrash
	case errors.Is(err, errTooLong), errors.Is(err, errNonsense):
		return fmt.Errorf("%w: %w", render.ErrInvalid, err)
	}
	return errKilled
}

// cpuTime is the processor time that the process has used, by the clock that the
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
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
