package tmpfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// directory is the top directory of a volume by its descriptor. A container may be able
// to write into the volume. So every call names one entry of a directory that is open
// already, no call follows a link or crosses a mount, and none opens what can block, as
// a FIFO does.
type directory struct{ fd int }

// maxRemovals bounds the entries that one clean-up removes. It is more than a volume can
// hold, unless a container makes new ones meanwhile.
const maxRemovals = 20_000

// errGrows says that a container makes files as fast as the driver removes them.
var errGrows = errors.New("remove old files: a container makes new files as fast as they are removed")

// openTop opens the top directory of the volume that d is a mount of.
func (d *detached) openTop() (directory, error) {
	fd, err := openDirectory(d.fd, ".")
	if err != nil {
		return directory{}, fmt.Errorf("open the volume's directory: %w", err)
	}
	return directory{fd}, nil
}

func (d directory) Close() {
	_ = unix.Close(d.fd) // which cannot fail for a descriptor that is ours
}

// openDirectory opens a directory below another. It opens nothing else.
func openDirectory(at int, name string) (int, error) {
	return unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// makeDirectoryAt creates a directory with a mode that the umask does not change, and
// opens it.
func makeDirectoryAt(at int, name string) (int, error) {
	if err := unix.Mkdirat(at, name, directoryMode); err != nil {
		return -1, err
	}
	fd, err := openDirectory(at, name)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, directoryMode); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// names lists a directory. An entry takes an inode, so the number of inodes of the
// volume bounds the list.
func names(fd int) ([]string, error) {
	again, err := openDirectory(fd, ".") // a list starts at the offset of the descriptor
	if err != nil {
		return nil, fmt.Errorf("list the volume: %w", err)
	}
	file := os.NewFile(uintptr(again), "")
	defer file.Close()
	all, err := file.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list the volume: %w", err)
	}
	return all, nil
}

// pointsTo reports whether an entry is a link with this content.
func (d directory) pointsTo(name, content string) bool {
	got := make([]byte, len(content)+1)
	n, err := unix.Readlinkat(d.fd, name, got)
	return err == nil && string(got[:n]) == content
}

// current is the name of the generation that "..data" points to, empty for none.
func (d directory) current() string {
	content := make([]byte, 256)
	n, err := unix.Readlinkat(d.fd, dataLink, content)
	if err != nil || n == len(content) {
		return ""
	}
	return string(content[:n])
}

// link puts a link in the place of whatever has this name.
func (d directory) link(content, name string) error {
	made := newName()
	if err := unix.Symlinkat(content, d.fd, made); err != nil {
		return err
	}
	err := unix.Renameat(d.fd, made, d.fd, name)
	if errors.Is(err, unix.EISDIR) {
		// Only a container can have put a directory there. It gets the hidden name, by
		// which the next clean-up removes it.
		err = unix.Renameat2(d.fd, made, d.fd, name, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(d.fd, made, 0))
	}
	return nil
}

// remove removes entries, with all that is below. It needs two descriptors, however
// deep that is: a directory below another moves to the top first.
func (d directory) remove(entries []string) error {
	var failure error
	for removals := 0; len(entries) > 0; removals++ {
		if removals > maxRemovals {
			return errGrows
		}
		name := entries[len(entries)-1]
		entries = entries[:len(entries)-1]
		err := unix.Unlinkat(d.fd, name, 0)
		if errors.Is(err, unix.EISDIR) {
			var found []string
			found, err = d.removeDirectory(name, &removals)
			entries = append(entries, found...)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && failure == nil {
			failure = fmt.Errorf("remove old files: %w", err)
		}
	}
	return failure
}

// removeDirectory removes a directory of the top, and returns the directories that it
// has moved from there to the top.
func (d directory) removeDirectory(name string, removals *int) (moved []string, err error) {
	moved, err = d.empty(name, removals)
	if err != nil {
		return moved, err
	}
	return moved, unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
}

func (d directory) empty(name string, removals *int) (moved []string, err error) {
	fd, err := openDirectory(d.fd, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	entries, err := names(fd)
	if err != nil {
		return nil, err
	}
	*removals += len(entries)
	for _, each := range entries {
		err := unix.Unlinkat(fd, each, 0)
		if errors.Is(err, unix.EISDIR) {
			top := newName()
			if err = unix.Renameat(fd, each, d.fd, top); err == nil {
				moved = append(moved, top)
			}
		}
		if err != nil {
			return moved, err
		}
	}
	return moved, nil
}

// makeParents creates the directories on the path of a file, below a generation, and
// opens the last. It is made is where it notes them.
func makeParents(generation int, file string, made map[string]bool) (int, error) {
	parent, err := openDirectory(generation, ".")
	if err != nil {
		return -1, err
	}
	directories := path.Dir(file)
	if directories == "." {
		return parent, nil
	}
	if made[directories] {
		defer unix.Close(parent)
		return openDirectory(parent, directories)
	}
	below := ""
	for part := range strings.SplitSeq(directories, "/") {
		below = path.Join(below, part)
		open := makeDirectoryAt
		if made[below] {
			open = openDirectory
		}
		next, err := open(parent, part)
		_ = unix.Close(parent)
		if err != nil {
			return -1, err
		}
		made[below], parent = true, next
	}
	return parent, nil
}

// newName is a hidden name that nobody can guess.
func newName() string { return hidden + rand.Text() }
