package tmpfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// holds reports whether the volume's current generation is exactly set: the same
// files with the same content, mode and owner.
func holds(root *os.Root, set Set) (bool, error) {
	current, err := root.Readlink(dataLink)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the current generation: %w", err)
	}
	count := 0
	err = fs.WalkDir(root.FS(), current, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			count++
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("list the current files: %w", err)
	}
	if count != len(set.Files) {
		return false, nil
	}
	for _, file := range set.Files {
		same, err := holdsFile(root, path.Join(current, file.Path), file, set)
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func holdsFile(root *os.Root, name string, file File, set Set) (bool, error) {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at file %q: %w", file.Path, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	const permissionBits = 0o7777
	owner := set.ownerOf(file)
	if !ok || !info.Mode().IsRegular() || stat.Mode&permissionBits != file.Perms || int(stat.Uid) != owner.UID || int(stat.Gid) != owner.GID {
		return false, nil
	}
	content, err := root.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("read file %q: %w", file.Path, err)
	}
	return bytes.Equal(content, file.Content), nil
}
