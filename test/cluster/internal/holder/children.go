package holder

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// children are the processes the holder started, and all that lost their own
// parent: as process 1 the holder inherits them. One place collects them all,
// because wait(2) for any child would take the exit status from exec.Cmd.Wait.
type children struct {
	mu      sync.Mutex
	ending  bool
	waiting map[int]chan<- unix.WaitStatus
	signals chan os.Signal
	wg      sync.WaitGroup
}

func newChildren() *children {
	c := &children{waiting: make(map[int]chan<- unix.WaitStatus), signals: make(chan os.Signal, 1)}
	signal.Notify(c.signals, unix.SIGCHLD)
	c.wg.Go(func() {
		for range c.signals {
			c.collect()
		}
	})
	return c
}

// start starts cmd, whose standard streams must be files or nil. The lock is
// held until the child is known, so that it cannot be collected before.
func (c *children) start(cmd *exec.Cmd) (pid int, exited <-chan unix.WaitStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return 0, nil, errors.New("the cluster is ending")
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	pid = cmd.Process.Pid
	status := make(chan unix.WaitStatus, 1)
	c.waiting[pid] = status
	return pid, status, cmd.Process.Release()
}

// collect takes the exit status of every child that has ended; several ends can
// arrive as one SIGCHLD.
func (c *children) collect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		pid, status, err := wait(unix.WNOHANG)
		if pid <= 0 || err != nil {
			return
		}
		c.deliver(pid, status)
	}
}

func (c *children) deliver(pid int, status unix.WaitStatus) {
	if waiter, ok := c.waiting[pid]; ok {
		waiter <- status
		delete(c.waiting, pid)
	}
}

// killAll kills every other process of the PID namespace and returns when the
// last one has been collected. kill(2) with -1 misses none: a fork under way
// when it comes is undone by the kernel and its parent killed.
func (c *children) killAll() error {
	signal.Stop(c.signals)
	close(c.signals)
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill all processes: %w", err)
	}
	for {
		pid, status, err := wait(0)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("collect processes: %w", err)
		}
		c.deliver(pid, status)
	}
}

// wait is wait4(2) for any child, started again when a signal interrupts it.
func wait(options int) (int, unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, options, nil)
		if !errors.Is(err, unix.EINTR) {
			return pid, status, err
		}
	}
}

// describe tells how a process ended.
func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
