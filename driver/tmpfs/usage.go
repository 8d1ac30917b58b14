package tmpfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Usage is the size and the content of a volume, in bytes and in inodes.
type Usage struct {
	BytesTotal, BytesUsed, BytesAvailable    int64
	InodesTotal, InodesUsed, InodesAvailable int64
}

// InodeBytes is the kernel memory in bytes of one inode of a tmpfs and its directory entry.
// It does not count against the size of the tmpfs, but against the memory of the process that
// creates the file.
const InodeBytes = 1 << 10

// ReadUsage reads the usage of the volume at target. The error is ErrNotMounted if there is
// none: the disk beneath has a usage as well.
func ReadUsage(target string) (Usage, error) {
	fd, err := openVolume(target)
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of the volume: %w", err)
	}
	defer unix.Close(fd)
	return readUsage(fd)
}

func readUsage(fd int) (Usage, error) {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(fd, &stat); err != nil {
		return Usage{}, fmt.Errorf("read the usage of the volume: %w", err)
	}
	block := int64(stat.Bsize)
	return Usage{
		BytesTotal:      int64(stat.Blocks) * block,
		BytesUsed:       int64(stat.Blocks-stat.Bfree) * block,
		BytesAvailable:  int64(stat.Bavail) * block,
		InodesTotal:     int64(stat.Files),
		InodesUsed:      int64(stat.Files - stat.Ffree),
		InodesAvailable: int64(stat.Ffree),
	}, nil
}

// explainFull says what to do about a volume without free space or inodes. The kernel's own
// text would name a path that only the driver sees.
func (t topDirectory) explainFull(err error, payload Payload) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	usage, err := readUsage(t.fd)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	need := payload.pageBytes()
	if usage.InodesAvailable < int64(payload.Inodes()) && usage.BytesAvailable >= need {
		return fmt.Errorf("%w: %d of %d inodes are free; delete the files that a container created in the volume",
			ErrFull, usage.InodesAvailable, usage.InodesTotal)
	}
	return fmt.Errorf("%w: the new files need %s, and %s of %s are free; set size: %s. "+
		"A container that holds an old file open, or mounts it by subPath, keeps its memory until it restarts",
		ErrFull, formatBytes(need), formatBytes(usage.BytesAvailable), formatBytes(usage.BytesTotal), quantity(usage.BytesTotal+need-usage.BytesAvailable))
}

// formatBytes writes a number of bytes with a binary unit.
func formatBytes(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", (bytes+1<<10-1)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

// quantity writes a number of bytes as a Kubernetes quantity, rounded up.
func quantity(bytes int64) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%dKi", (bytes+1<<10-1)>>10)
	}
	return fmt.Sprintf("%dMi", (bytes+1<<20-1)>>20)
}

// pageBytes is the memory that the files take. A file of a tmpfs takes whole pages, a
// directory or a short link none.
func (p Payload) pageBytes() int64 {
	page := int64(os.Getpagesize())
	total := int64(0)
	for _, file := range p {
		total += (int64(len(file.Content)) + page - 1) / page * page
	}
	return total
}

// Inodes is the number of inodes that a volume needs for the payload.
func (p Payload) Inodes() int {
	paths := make([]string, 0, len(p))
	for _, file := range p {
		paths = append(paths, file.Path)
	}
	return Inodes(paths)
}

// Inodes is the number of inodes that a volume needs for files at these paths: two data
// directories, the user-visible links, and a few for their replacement.
func Inodes(paths []string) int {
	const others = 16
	directories, top := map[string]bool{}, map[string]bool{}
	for _, file := range paths {
		name := file
		for directory := path.Dir(file); directory != "."; directory = path.Dir(directory) {
			directories[directory], name = true, directory
		}
		top[name] = true
	}
	return 2*(len(paths)+len(directories)+1) + len(top) + others
}

// ReleaseWatcher reports when the kernel has freed the memory of an unmounted volume. That is
// at once, unless a process of the node has a file of it open, or another mount namespace
// holds it. Its methods may run concurrently; each id is returned once.
type ReleaseWatcher struct{ inotify int }

// NewReleaseWatcher takes one inotify instance of the node.
func NewReleaseWatcher() (*ReleaseWatcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the memory of volumes: %w", err)
	}
	return &ReleaseWatcher{fd}, nil
}

// Watch starts to watch the volume at target, which can still be unmounted. The error is
// ErrNotMounted if there is none.
func (w *ReleaseWatcher) Watch(target string) (id int, err error) {
	fd, err := openVolume(target)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	// The kernel reports the end of the file system with any mask.
	id, err = unix.InotifyAddWatch(w.inotify, fmt.Sprintf("/proc/self/fd/%d", fd), unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	if err != nil {
		return 0, fmt.Errorf("watch the memory of a volume: %w", err)
	}
	return id, nil
}

// Freed returns the ids of the volumes whose memory was freed since the last call. After a
// queue overflow they are unknown, and all is true.
func (w *ReleaseWatcher) Freed() (ids []int, all bool) {
	events := make([]byte, 64*unix.SizeofInotifyEvent)
	for {
		n, err := unix.Read(w.inotify, events)
		if err != nil || n < unix.SizeofInotifyEvent {
			return ids, all
		}
		// The events are about directories themselves, so none has a name after it.
		for event := events[:n]; len(event) >= unix.SizeofInotifyEvent; event = event[unix.SizeofInotifyEvent:] {
			id, mask := int32(binary.NativeEndian.Uint32(event)), binary.NativeEndian.Uint32(event[4:])
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				all = true
			case mask&unix.IN_IGNORED != 0:
				ids = append(ids, int(id))
			}
		}
	}
}

// Close ends all watches.
func (w *ReleaseWatcher) Close() {
	_ = unix.Close(w.inotify) // cannot fail for a descriptor of this process
}
