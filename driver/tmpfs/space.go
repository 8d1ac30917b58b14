package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"path"

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

// full says what to do where the size or the number of inodes, which goes by the size,
// ran out. The kernel's own words would name a path that only the driver sees.
func (d *detached) full(err error, set Set) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &stat); err != nil {
		return fmt.Errorf("%w: read the usage of the volume: %w", ErrFull, err)
	}
	usage := usageOf(stat)
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

// countInodes allows two generations of the set, the links, and some slack; and
// for sets that follow with more files, one for each page, which files take.
func countInodes(set Set, sizeBytes int64) int {
	const slack = 16
	directories := map[string]bool{}
	for _, file := range set.Files {
		for directory := path.Dir(file.Path); directory != "."; directory = path.Dir(directory) {
			directories[directory] = true
		}
	}
	pages := int(sizeBytes / int64(os.Getpagesize()))
	return max(2*(len(set.Files)+len(directories)+1)+len(topNames(set)), pages) + slack
}
