package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Usage is what a volume holds, in bytes and in inodes.
type Usage struct {
	BytesTotal, BytesUsed, BytesAvailable    int64
	InodesTotal, InodesUsed, InodesAvailable int64
}

// ReadUsage reads the usage of the volume at target. The error is ErrUnmounted
// where there is none: what is beneath has a usage as well.
func ReadUsage(target string) (Usage, error) {
	fd, err := openVolume(target)
	if err != nil {
		return Usage{}, fmt.Errorf("read the usage of the volume: %w", err)
	}
	defer unix.Close(fd)
	var stat unix.Statfs_t
	if err := unix.Fstatfs(fd, &stat); err != nil {
		return Usage{}, fmt.Errorf("read the usage of the volume: %w", err)
	}
	return usageOf(stat), nil
}

func usageOf(stat unix.Statfs_t) Usage {
	block := int64(stat.Bsize)
	return Usage{
		BytesTotal:      int64(stat.Blocks) * block,
		BytesUsed:       int64(stat.Blocks-stat.Bfree) * block,
		BytesAvailable:  int64(stat.Bavail) * block,
		InodesTotal:     int64(stat.Files),
		InodesUsed:      int64(stat.Files - stat.Ffree),
		InodesAvailable: int64(stat.Ffree),
	}
}

// full says what to do where the size or the number of inodes ran out. The kernel's own
// words would name a path that only the driver sees.
func (d *detached) full(err error, set Set) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &stat); err != nil {
		return fmt.Errorf("%w: read the usage of the volume: %w", ErrFull, err)
	}
	usage := usageOf(stat)
	if usage.InodesAvailable < int64(set.Inodes()) && usage.BytesAvailable >= pageBytes(set) {
		return fmt.Errorf("%w: %d of %d inodes are free; delete the files that a container made in the volume", ErrFull, usage.InodesAvailable, usage.InodesTotal)
	}
	return fmt.Errorf("%w: the new ones take %d bytes in whole pages, and %d of %d are free beside those that are there; raise the attribute size. A container that keeps an old file open, or mounts it by subPath, holds its memory until it restarts", ErrFull, pageBytes(set), usage.BytesAvailable, usage.BytesTotal)
}

// pageBytes is what the files take: tmpfs gives each a whole number of pages,
// and directories and short links none.
func pageBytes(set Set) int64 {
	page := int64(os.Getpagesize())
	total := int64(0)
	for _, file := range set.Files {
		total += (int64(len(file.Content)) + page - 1) / page * page
	}
	return total
}

// InodeBytes is the kernel memory in bytes that an inode of a tmpfs takes with its
// directory entry. The kernel does not count it against the size of the tmpfs, but
// against the memory of the process that creates the file.
const InodeBytes = 1 << 10

// Inodes is how many inodes a volume needs for files at these paths: two generations,
// the links that users see, and a few more for what replaces them.
func Inodes(paths []string) int {
	const others = 16
	directories, top := map[string]bool{}, map[string]bool{}
	for _, file := range paths {
		name, _, _ := strings.Cut(file, "/")
		top[name] = true
		for directory := path.Dir(file); directory != "." && !directories[directory]; directory = path.Dir(directory) {
			directories[directory] = true
		}
	}
	return 2*(len(paths)+len(directories)+1) + len(top) + others
}

// Inodes is how many inodes a volume needs for the set.
func (s Set) Inodes() int { return Inodes(s.paths()) }

func (s Set) paths() []string {
	paths := make([]string, 0, len(s.Files))
	for _, file := range s.Files {
		paths = append(paths, file.Path)
	}
	return paths
}
