package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// topDirectory is the top directory of a volume by its descriptor. A container may be able to
// write there. So each call names one entry of an open directory, follows no link, crosses no
// mount, and opens nothing that can block, such as a FIFO.
type topDirectory struct{ fd int }

// maxRemovals bounds the entries that one call removes. No volume holds more, unless a
// container creates files at the same time.
const maxRemovals = 20_000

var errFilesGrow = errors.New("remove old files: a container creates files as fast as the driver removes them")

func (d *detachedMount) openTop() (topDirectory, error) {
	fd, err := openDirectory(d.fd, ".")
	if err != nil {
		return topDirectory{}, fmt.Errorf("open the top directory of the volume: %w", err)
	}
	return topDirectory{fd}, nil
}

// Close releases the descriptor.
func (t topDirectory) Close() {
	_ = unix.Close(t.fd) // cannot fail for a descriptor of this process
}

func openDirectory(at int, name string) (int, error) {
	return unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// makeDirectory opens a directory, and creates it if it does not exist. The umask does not
// change its mode.
func makeDirectory(at int, name string) (int, error) {
	const mode = 0o755
	if err := unix.Mkdirat(at, name, mode); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := openDirectory(at, name)
	if err != nil {
		return -1, err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// makeParents creates the directories on the path of a file, and opens the last one.
func makeParents(dataDir int, file string) (int, error) {
	fd, err := openDirectory(dataDir, ".")
	if directories := path.Dir(file); directories != "." {
		for name := range strings.SplitSeq(directories, "/") {
			if err != nil {
				break
			}
			parent := fd
			fd, err = makeDirectory(parent, name)
			_ = unix.Close(parent)
		}
	}
	return fd, err
}

// readNames lists a directory. The number of inodes of the volume bounds the list.
func readNames(fd int) ([]string, error) {
	list, err := openDirectory(fd, ".") // because a list starts at the offset of its descriptor
	if err != nil {
		return nil, fmt.Errorf("list a directory of the volume: %w", err)
	}
	directory := os.NewFile(uintptr(list), "")
	defer directory.Close()
	names, err := directory.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list a directory of the volume: %w", err)
	}
	return names, nil
}

// readLink returns the content of a link, or nothing if the entry is not a short link.
func (t topDirectory) readLink(name string) string {
	content := make([]byte, 512)
	n, err := unix.Readlinkat(t.fd, name, content)
	if err != nil || n == len(content) {
		return ""
	}
	return string(content[:n])
}

func (t topDirectory) linksTo(name, content string) bool { return t.readLink(name) == content }

// link puts a link in the place of any entry of this name.
func (t topDirectory) link(content, name string) error {
	temporary := newName()
	if err := unix.Symlinkat(content, t.fd, temporary); err != nil {
		return err
	}
	err := unix.Renameat(t.fd, temporary, t.fd, name)
	if errors.Is(err, unix.EISDIR) {
		// A container put a directory there. It gets the hidden name, by which
		// removeObsolete removes it.
		err = unix.Renameat2(t.fd, temporary, t.fd, name, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(t.fd, temporary, 0))
	}
	return nil
}

// remove deletes entries with everything below them. It needs two descriptors for a tree of
// any depth: a nested directory moves to the top first.
func (t topDirectory) remove(entries []string) error {
	var failure error
	for removals := 0; len(entries) > 0; removals++ {
		if removals > maxRemovals {
			return errFilesGrow
		}
		last := len(entries) - 1
		name := entries[last]
		entries = entries[:last]
		err := unix.Unlinkat(t.fd, name, 0)
		if errors.Is(err, unix.EISDIR) {
			var nested []string
			nested, err = t.removeDirectory(name, &removals)
			entries = append(entries, nested...)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && failure == nil {
			failure = fmt.Errorf("remove old files: %w", err)
		}
	}
	return failure
}

// removeDirectory removes a directory of the top, and returns the directories that it has
// moved from there to the top.
func (t topDirectory) removeDirectory(name string, removals *int) (nested []string, err error) {
	fd, err := openDirectory(t.fd, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	entries, err := readNames(fd)
	if err != nil {
		return nil, err
	}
	*removals += len(entries)
	for _, entry := range entries {
		err := unix.Unlinkat(fd, entry, 0)
		if errors.Is(err, unix.EISDIR) {
			moved := newName()
			nested = append(nested, moved)
			err = unix.Renameat(fd, entry, t.fd, moved)
		}
		if err != nil {
			return nested, err
		}
	}
	return nested, unix.Unlinkat(t.fd, name, unix.AT_REMOVEDIR)
}
