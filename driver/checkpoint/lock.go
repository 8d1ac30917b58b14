package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process has the right to the state.
var ErrHeld = errors.New("another process of the driver looks after the volumes of this node and does not hand them over; delete its pod")

// Lock is the right to the state, which one process has at a time. It ends with
// the process.
type Lock struct {
	file *os.File
}

// lockInterval is the time between two attempts to get the right from a process
// that is about to end.
const lockInterval = 10 * time.Millisecond

// Acquire gets the right to the state in a directory, for as long as the process
// lives or until Release. While another process has it, it tries until ctx ends:
// the kernel closes the files of a process that was killed one after the other.
// The lock is a file beside the directory, not in it, where it would keep the
// tmpfs busy. The error is ErrHeld then.
func Acquire(ctx context.Context, directory string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(directory), 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the state: %w", err)
	}
	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for {
		lock, err := try(directory + ".lock")
		if err != nil || lock != nil {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, ErrHeld
		case <-tick.C:
		}
	}
}

// try returns nil if another process has the lock, or has just taken the file away
// with which it had it.
func try(path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the state: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, file.Close()
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock the state: %w", err), file.Close())
	case !isAt(file, path):
		return nil, file.Close()
	}
	return &Lock{file: file}, nil
}

func isAt(file *os.File, path string) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// Release gives the right up.
func (l *Lock) Release() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("unlock the state: %w", err)
	}
	return nil
}

// Remove gives the right up and leaves no file.
func (l *Lock) Remove() error {
	if err := os.Remove(l.file.Name()); err != nil {
		return errors.Join(fmt.Errorf("remove the lock of the state: %w", err), l.Release())
	}
	return l.Release()
}
