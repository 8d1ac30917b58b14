package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Private is a tmpfs at a target path that only root may look into. This process
// holds it by a second mount, which no path leads to. So an unmount of the target
// neither takes the content away nor has anything written to the disk beneath: files
// are made below Root and never by the target path. It may be used concurrently
// until Close.
type Private struct {
	target string
	root   *os.Root
	top    os.FileInfo // of root

	mutex sync.Mutex
	held  *detached
}

// OpenPrivate holds the tmpfs at target. It makes one of sizeBytes and attaches it,
// unless an earlier process has.
func (m *Mounter) OpenPrivate(target string, sizeBytes int64) (*Private, error) {
	if err := m.createPrivate(target, sizeBytes); err != nil {
		return nil, err
	}
	held, err := openTree(target)
	if err != nil {
		return nil, err
	}
	root, err := held.root()
	if err != nil {
		held.Close()
		return nil, err
	}
	top, err := root.Stat(".")
	if err != nil {
		held.Close()
		return nil, errors.Join(fmt.Errorf("look at the top directory of %s: %w", target, err), root.Close())
	}
	return &Private{target: target, root: root, top: top, held: held}, nil
}

func (m *Mounter) createPrivate(target string, sizeBytes int64) error {
	exists, err := Exists(target)
	if err != nil || exists {
		return err
	}
	mount, err := newDetached(options{source: m.source, sizeBytes: sizeBytes, inodes: int(sizeBytes / int64(os.Getpagesize())), mode: privateMode, noswap: m.noswap})
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := makeDirectory(target); err != nil {
		return err
	}
	return mount.attach(target)
}

// Root is the top directory, wherever the tmpfs is attached, and if it is nowhere.
func (p *Private) Root() *os.Root { return p.root }

// IsAttached reports whether the next process finds the tmpfs at the target.
func (p *Private) IsAttached() bool {
	there, err := os.Lstat(p.target)
	return err == nil && os.SameFile(there, p.top)
}

// Attach puts the tmpfs, with all that it holds, back to the target if somebody has
// unmounted it, or mounted something over it. It reports whether it has.
func (p *Private) Attach() (anew bool, err error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.IsAttached() {
		return false, nil
	}
	if err := makeDirectory(p.target); err != nil {
		return false, err
	}
	if err := p.held.attach(p.target); err != nil {
		return false, err
	}
	// What is held is attached now, and goes with the next unmount. It is cloned only
	// now because no kernel before Linux 6.15 clones a mount that is not attached.
	next, err := p.held.clone()
	if err != nil {
		return true, err
	}
	p.held.Close()
	p.held = next
	return true, nil
}

// Usage reads how much the tmpfs holds.
func (p *Private) Usage() (Usage, error) {
	top, err := p.root.Open(".")
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of %s: %w", p.target, err)
	}
	defer top.Close()
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(top.Fd()), &stat); err != nil {
		return Usage{}, fmt.Errorf("read the usage of %s: %w", p.target, err)
	}
	return usageOf(stat), nil
}

// Close lets the tmpfs go, which stays where it is attached. With remove, it is
// unmounted and the target removed, unless somebody looks into it.
func (p *Private) Close(remove bool) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	err := p.root.Close() // or the tmpfs is busy
	p.held.Close()
	if !remove {
		return err
	}
	unmounted := unix.Unmount(p.target, unix.UMOUNT_NOFOLLOW)
	switch {
	case errors.Is(unmounted, unix.EBUSY):
		return err
	case unmounted != nil && !errors.Is(unmounted, unix.EINVAL) && !errors.Is(unmounted, unix.ENOENT):
		return errors.Join(err, fmt.Errorf("unmount %s: %w", p.target, unmounted))
	}
	return errors.Join(err, removeDirectory(p.target))
}
