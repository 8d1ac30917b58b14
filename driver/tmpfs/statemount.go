package tmpfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// StateMount is a tmpfs that only root may read, for the checkpoints of the driver. Its files
// are below Root, which holds the mount by a descriptor: after an unmount of the target they
// stay in memory, and nothing is written to the disk beneath. Its methods may run concurrently
// until Close.
type StateMount struct {
	target string
	root   *os.Root
	top    os.FileInfo // of root
}

// OpenStateMount opens the tmpfs at target. It creates one of sizeBytes if an earlier process
// has left none.
func (m *Mounter) OpenStateMount(target string, sizeBytes int64) (*StateMount, error) {
	if err := m.createStateMount(target, sizeBytes); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	top, err := root.Stat(".")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the state: %w", err), root.Close())
	}
	return &StateMount{target: target, root: root, top: top}, nil
}

func (m *Mounter) createStateMount(target string, sizeBytes int64) error {
	exists, err := Exists(target)
	if err != nil || exists {
		return err
	}
	mount, err := m.newMount("0700", sizeBytes, int(sizeBytes/int64(os.Getpagesize())))
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := makeTarget(target); err != nil {
		return err
	}
	return mount.attach(target)
}

// Root is the top directory of the tmpfs, also while it is attached nowhere.
func (s *StateMount) Root() *os.Root { return s.root }

// IsAttached reports whether the next process finds the tmpfs at the target.
func (s *StateMount) IsAttached() bool {
	info, err := os.Lstat(s.target)
	return err == nil && os.SameFile(info, s.top)
}

// Usage reads the usage of the tmpfs.
func (s *StateMount) Usage() (Usage, error) {
	top, err := s.root.Open(".")
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of the state: %w", err)
	}
	defer top.Close()
	return readUsage(int(top.Fd()))
}

// Close leaves the tmpfs attached for the next process. With remove, it unmounts the tmpfs
// and removes the target, unless a process uses it.
func (s *StateMount) Close(remove bool) error {
	err := s.root.Close() // or the tmpfs is busy
	if !remove {
		return err
	}
	unmounted := unix.Unmount(s.target, unix.UMOUNT_NOFOLLOW)
	switch {
	case errors.Is(unmounted, unix.EBUSY):
		return err
	case unmounted != nil && !errors.Is(unmounted, unix.EINVAL) && !errors.Is(unmounted, unix.ENOENT):
		return errors.Join(err, fmt.Errorf("unmount the state: %w", unmounted))
	}
	return errors.Join(err, removeTarget(s.target))
}
