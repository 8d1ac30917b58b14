package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// StateMount is a tmpfs that only root may read. The driver creates its files below Root,
// never by the target path: after an unmount of the target they stay in memory, and nothing
// is written to the disk beneath. Its methods may run concurrently until Close.
type StateMount struct {
	target string
	root   *os.Root
	top    os.FileInfo // of root

	mutex  sync.Mutex
	second *detachedMount
}

// OpenStateMount opens the tmpfs at target. It creates one of sizeBytes if an earlier process
// has left none.
func (m *Mounter) OpenStateMount(target string, sizeBytes int64) (*StateMount, error) {
	if err := m.createStateMount(target, sizeBytes); err != nil {
		return nil, err
	}
	second, err := cloneMount(target)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", second.fd))
	if err != nil {
		second.Close()
		return nil, fmt.Errorf("open the state directory: %w", err)
	}
	top, err := root.Stat(".")
	if err != nil {
		second.Close()
		return nil, errors.Join(fmt.Errorf("open the state directory: %w", err), root.Close())
	}
	return &StateMount{target: target, root: root, top: top, second: second}, nil
}

func (m *Mounter) createStateMount(target string, sizeBytes int64) error {
	exists, err := Exists(target)
	if err != nil || exists {
		return err
	}
	mount, err := newDetachedMount(tmpfsOptions{source: m.source, sizeBytes: sizeBytes, inodes: int(sizeBytes / int64(os.Getpagesize())), mode: stateMode, noswap: m.noswap})
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

// Attach mounts the tmpfs, with its content, at the target again. It reports false if the
// tmpfs is still there.
func (s *StateMount) Attach() (attached bool, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.IsAttached() {
		return false, nil
	}
	if err := makeTarget(s.target); err != nil {
		return false, err
	}
	if err := s.second.attach(s.target); err != nil {
		return false, err
	}
	// Linux before 6.15 clones a mount only while it is attached.
	next, err := cloneDescriptor(s.second.fd)
	if err != nil {
		return true, err
	}
	s.second.Close()
	s.second = next
	return true, nil
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
	s.mutex.Lock()
	defer s.mutex.Unlock()
	err := s.root.Close() // an open file keeps a tmpfs busy
	s.second.Close()
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
