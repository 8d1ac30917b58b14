package tmpfs

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// Prepared is a volume that is not there yet: an empty tmpfs that no path leads to,
// and a target path. One call of Attach or Discard ends it.
type Prepared struct {
	mounter *Mounter
	target  string
	size    int64
	mount   *detached
	inodes  int
}

// Prepare does what can be done for a volume of at most sizeBytes before its
// content is known: it creates the directory at target, which is most of the work
// where the disk beneath keeps a journal. Inodes is the number that Inodes returns for
// the files that are known. After an error there is nothing.
func (m *Mounter) Prepare(target string, sizeBytes int64, inodes int) (*Prepared, error) {
	p := &Prepared{mounter: m, target: target, size: sizeBytes}
	if err := p.mountFor(inodes); err != nil {
		return nil, err
	}
	if err := makeDirectory(target); err != nil {
		p.mount.Close()
		return nil, err
	}
	return p, nil
}

// mountFor has a tmpfs of so many inodes, in place of one of fewer.
func (p *Prepared) mountFor(inodes int) error {
	mount, err := newDetached(options{source: p.mounter.source, sizeBytes: p.size, inodes: inodes, mode: volumeMode, noswap: p.mounter.noswap})
	if err != nil {
		return err
	}
	if p.mount != nil {
		p.mount.Close()
	}
	p.mount, p.inodes = mount, inodes
	return nil
}

// Attach writes set into the volume, mounts it at its target, and returns what it wrote.
// The size must hold the set twice, since the old and the new files of a rotation exist
// at the same time; the error is ErrFull if it does not. After an error there is neither
// a mount nor a directory at target.
func (p *Prepared) Attach(set Set) (Written, error) {
	if err := p.attach(set); err != nil {
		return nil, errors.Join(err, p.Discard())
	}
	p.mount.Close()
	return recordOf(set), nil
}

func (p *Prepared) attach(set Set) error {
	if need := 2 * pageBytes(set); need > p.size {
		return fmt.Errorf("%w: the files take %d bytes in whole pages, two generations of them %d, and the size is %d; raise the attribute size", ErrFull, need/2, need, p.size)
	}
	if inodes := set.Inodes(); inodes > p.inodes {
		if err := p.mountFor(inodes); err != nil {
			return err
		}
	}
	if err := p.writeAlone(set); err != nil {
		return err
	}
	if err := p.mount.setReadOnly(true); err != nil {
		return err
	}
	return p.mount.attach(p.target)
}

// writeAlone writes the files while no process is started. One that is, as for
// templates, holds what this process has open until it runs its own program; and
// Linux makes no mount read-only that has a file open for writing.
func (p *Prepared) writeAlone(set Set) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return p.mount.write(set)
}

// Discard leaves neither a mount nor a directory.
func (p *Prepared) Discard() error {
	p.mount.Close()
	return removeDirectory(p.target)
}

// Create is Prepare and Attach.
func (m *Mounter) Create(target string, sizeBytes int64, set Set) (Written, error) {
	prepared, err := m.Prepare(target, sizeBytes, set.Inodes())
	if err != nil {
		return nil, err
	}
	return prepared.Attach(set)
}

// makeDirectory accepts a directory that is there already, as some kubelets make
// it, but not one with somebody's files: the mount would hide them.
func makeDirectory(target string) error {
	// The path may be one by a descriptor, which no error is to show.
	err := unix.Mkdir(target, 0o750)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create target path: %w", err)
	}
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("create target path: %w: it is not a directory", ErrOccupied)
	}
	if err != nil {
		return fmt.Errorf("look into the target path: %w", err)
	}
	defer unix.Close(fd)
	entries, err := names(fd)
	if err != nil {
		return fmt.Errorf("look into the target path: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("create target path: %w: it is not empty", ErrOccupied)
	}
	return nil
}

func removeDirectory(target string) error {
	// rmdir and not os.Remove, which would delete a file as well.
	if err := unix.Rmdir(target); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove target path: %w", err)
	}
	return nil
}
