package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The layout is that of the kubelet's own Secret and ConfigMap volumes, which
// programs that watch for changes already know:
//
//	..<generation>/conf/app.txt   the files
//	..data -> ..<generation>      swapped by rename
//	conf -> ..data/conf           what users see
const (
	dataLink = "..data"
	hidden   = ".."

	directoryMode = 0o755
)

// write fills a volume that is empty and that nobody else has seen.
func (d *detached) write(set Set) error {
	top, err := d.openTop()
	if err != nil {
		return err
	}
	defer top.Close()
	return d.full(top.put(set), set)
}

func (d *detached) replace(set Set) error {
	top, err := d.openTop()
	if err != nil {
		return err
	}
	defer top.Close()
	// What an earlier process left, or a container made, takes space. It prevents
	// nothing else, so a file that cannot be removed is no error while the set fits.
	left := top.removeOld()
	if err := top.put(set); err != nil {
		return errors.Join(d.full(err, set), left)
	}
	_ = errors.Join(top.removeStaleLinks(set), top.removeOld()) // the next replacement tries again
	return nil
}

// put makes a generation of the set the current one. After an error nothing is left
// of it.
func (d directory) put(set Set) error {
	generation := newName()
	err := d.writeGeneration(generation, set)
	if err == nil {
		err = d.swap(generation, set)
	}
	if err != nil {
		return errors.Join(err, d.remove([]string{generation}))
	}
	return nil
}

func (d directory) writeGeneration(name string, set Set) error {
	generation, err := makeDirectoryAt(d.fd, name)
	if err != nil {
		return fmt.Errorf("create a directory for the files: %w", err)
	}
	defer unix.Close(generation)
	made := map[string]bool{}
	for _, file := range set.Files {
		parent, err := makeParents(generation, file.Path, made)
		if err != nil {
			return fmt.Errorf("create the directory of %q: %w", file.Path, err)
		}
		err = writeFile(parent, file, set)
		_ = unix.Close(parent)
		if err != nil {
			return fmt.Errorf("write file %q: %w", file.Path, err)
		}
	}
	return nil
}

func writeFile(parent int, file File, set Set) (err error) {
	// The file is new (O_EXCL), so it is a regular one. Nobody but root reads it before
	// it has its owner and mode.
	fd, err := unix.Openat(parent, path.Base(file.Path), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "")
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(file.Content); err != nil {
		return err
	}
	owner := set.ownerOf(file)
	if err := unix.Fchown(fd, owner.UID, owner.GID); err != nil {
		return err
	}
	return unix.Fchmod(fd, file.Perms)
}

// swap puts the links that users see in place before "..data" moves, so that a
// file of the new set is never missing once its content is there. After an error there
// is no link that was not there before.
func (d directory) swap(generation string, set Set) (err error) {
	var made []string
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove(made))
		}
	}()
	for name := range topNames(set) {
		content := path.Join(dataLink, name)
		if d.pointsTo(name, content) {
			continue
		}
		if err := d.link(content, name); err != nil {
			return fmt.Errorf("link %q: %w", name, err)
		}
		made = append(made, name)
	}
	if err := d.link(generation, dataLink); err != nil {
		return fmt.Errorf("swap the files: %w", err)
	}
	return nil
}

// removeOld removes every generation but the current one: the previous one, or what
// a process left behind that was killed while it wrote.
func (d directory) removeOld() error {
	current := d.current()
	return d.removeAll(func(name string) bool {
		return strings.HasPrefix(name, hidden) && name != dataLink && name != current
	})
}

// removeStaleLinks removes the links to files that are gone. It leaves alone what this
// package has not made.
func (d directory) removeStaleLinks(set Set) error {
	wanted := topNames(set)
	return d.removeAll(func(name string) bool {
		return !strings.HasPrefix(name, hidden) && !wanted[name] && d.pointsTo(name, path.Join(dataLink, name))
	})
}

func (d directory) removeAll(unwanted func(name string) bool) error {
	entries, err := names(d.fd)
	if err != nil {
		return err
	}
	var old []string
	for _, name := range entries {
		if unwanted(name) {
			old = append(old, name)
		}
	}
	return d.remove(old)
}

// topNames are the names at the top of the volume, one for each file or for the
// first directory on its path.
func topNames(set Set) map[string]bool {
	names := map[string]bool{}
	for _, file := range set.Files {
		name, _, _ := strings.Cut(file.Path, "/")
		names[name] = true
	}
	return names
}
