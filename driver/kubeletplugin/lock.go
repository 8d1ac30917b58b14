package kubeletplugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	instanceLock = "instance.lock"
	standbyLock  = "standby.lock"
)

// lockInterval is the time between two attempts to lock: a part of the gap of a hand-off.
// A blocking flock(2) cannot be cancelled.
const lockInterval = 20 * time.Millisecond

// Lock makes its holder the active instance of the driver on the node. It ends with the
// process. The active instance has an exclusive flock(2) on the first file; each standby
// has a shared one on the second, by which the active instance knows of it.
type Lock struct {
	directory string
	instance  *os.File
	// standby is nil until the active instance stops, and after that if another waits.
	standby *os.File
}

// acquire waits for the lock until ctx ends. If another instance has it, it calls waiting
// once.
func acquire(ctx context.Context, directory string, waiting func()) (*Lock, error) {
	var standby *os.File
	defer func() { closeFile(standby) }()
	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for attempt := 0; ; attempt++ {
		instance, err := tryLock(filepath.Join(directory, instanceLock), unix.LOCK_EX)
		if err != nil {
			return nil, err
		}
		if instance != nil {
			return &Lock{directory: directory, instance: instance}, nil
		}
		if standby == nil {
			if standby, err = tryLock(filepath.Join(directory, standbyLock), unix.LOCK_SH); err != nil {
				return nil, err
			}
		}
		if attempt == 0 {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the active instance to stop: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// hasStandby reports whether another instance waits for the lock. If none does, none is
// seen from then on until the lock is released.
func (l *Lock) hasStandby() (bool, error) {
	if l.standby != nil {
		return false, nil
	}
	var err error
	l.standby, err = tryLock(filepath.Join(l.directory, standbyLock), unix.LOCK_EX)
	return err == nil && l.standby == nil, err
}

// Release lets a standby become active. If there is none, no file is left.
func (l *Lock) Release() error {
	var err error
	if l.standby != nil {
		err = errors.Join(os.Remove(l.standby.Name()), os.Remove(l.instance.Name()))
	}
	closeFile(l.standby)
	closeFile(l.instance)
	if err != nil {
		return fmt.Errorf("remove the locks of the instance: %w", err)
	}
	return nil
}

// tryLock returns nil if another process has a lock that excludes this one, or removes
// the file at this time.
func tryLock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
	if err == nil && isAt(file, path) {
		return file, nil
	}
	closeFile(file)
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, nil
}

func isAt(file *os.File, path string) bool {
	locked, err := file.Stat()
	if err != nil {
		return false
	}
	current, err := os.Stat(path)
	return err == nil && os.SameFile(locked, current)
}

func closeFile(file *os.File) {
	if file != nil {
		_ = file.Close() // nothing was written
	}
}
