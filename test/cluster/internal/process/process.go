// Package process refers to other processes in a way that never mistakes one
// process for another that was given the same number later. It starts none.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that a process has ended.
var ErrGone = errors.New("process has ended")

// ID names a process for as long as the machine runs: the kernel gives numbers
// out again, but not together with the same start time.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after the machine's own start
}

// Identify returns the ID of a process that runs now.
func Identify(pid int) (ID, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ID{}, ErrGone
	}
	if err != nil {
		return ID{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	start, err := startTime(stat)
	if err != nil {
		return ID{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return ID{PID: pid, Start: start}, nil
}

// startTime finds field 22 of a /proc/PID/stat. Field 2 is the program's name
// in parentheses and may hold spaces and parentheses itself.
func startTime(stat []byte) (uint64, error) {
	_, after, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	fields := bytes.Fields(after)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("read start time: %q is no process status", stat)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// Handle is an open reference to one process.
type Handle struct {
	fd int
}

// Open returns a handle of the process, or ErrGone. The descriptor is opened
// before the start time is compared: from then on it cannot change its meaning.
func (id ID) Open() (*Handle, error) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	h := &Handle{fd: fd}
	if err := h.check(id); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// check gives ErrGone for another process than id, and for one that has ended
// and that its parent has not collected: in a container process 1 may never do.
func (h *Handle) check(id ID) error {
	now, err := Identify(id.PID)
	if err != nil {
		return err
	}
	ended, err := h.poll(0)
	if err == nil && (ended || now != id) {
		return ErrGone
	}
	return err
}

// Close releases the handle.
func (h *Handle) Close() error { return unix.Close(h.fd) }

// Signal sends a signal; a process that has ended is no error.
func (h *Handle) Signal(s unix.Signal) error {
	err := unix.PidfdSendSignal(h.fd, s, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s: %w", unix.SignalName(s), err)
	}
	return nil
}

// Wait returns nil when the process has ended, or the context's error. It polls
// in slices because poll(2) knows nothing of contexts.
func (h *Handle) Wait(ctx context.Context) error {
	for {
		ended, err := h.poll(50 * time.Millisecond)
		if err == nil && !ended {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("wait for process: %w", err)
		}
		if ended {
			return nil
		}
	}
}

// poll tells whether the process ends within the time.
func (h *Handle) poll(within time.Duration) (ended bool, err error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}}, int(within.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}
