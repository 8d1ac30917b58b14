package tmpfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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
	dataLink    = "..data"
	dataLinkNew = "..data_new"
	hidden      = ".."
)

// write fills a volume that is empty and that nobody else has seen.
func (d *detached) write(set Set) error {
	root, err := d.root()
	if err != nil {
		return err
	}
	defer root.Close()
	return d.full(put(root, set), set)
}

func (d *detached) replace(set Set) (changed bool, err error) {
	root, err := d.root()
	if err != nil {
		return false, err
	}
	defer root.Close()
	same, err := holds(root, set)
	if err != nil || same {
		return false, err
	}
	if err := sweep(root); err != nil {
		return false, err
	}
	if err := put(root, set); err != nil {
		return false, d.full(err, set)
	}
	// The swap is done; what is left of the old set is only in the way.
	return true, errors.Join(removeStaleLinks(root, set), sweep(root))
}

// put makes a generation of the set the current one. After an error nothing is left
// of it.
func put(root *os.Root, set Set) error {
	generation := hidden + rand.Text()
	err := writeGeneration(root, generation, set)
	if err == nil {
		err = swap(root, generation, set)
	}
	if err != nil {
		return errors.Join(err, root.RemoveAll(generation))
	}
	return nil
}

func writeGeneration(root *os.Root, generation string, set Set) error {
	if err := root.Mkdir(generation, 0o755); err != nil {
		return fmt.Errorf("create a directory for the files: %w", err)
	}
	// Each part of a path below a root costs a look of its own.
	directory, err := root.OpenRoot(generation)
	if err != nil {
		return fmt.Errorf("open the directory for the files: %w", err)
	}
	defer directory.Close()
	for _, file := range set.Files {
		if parent := path.Dir(file.Path); parent != "." {
			if err := directory.MkdirAll(parent, 0o755); err != nil {
				return fmt.Errorf("create the directory of %q: %w", file.Path, err)
			}
		}
		if err := writeFile(directory, file, set); err != nil {
			return fmt.Errorf("write file %q: %w", file.Path, err)
		}
	}
	return nil
}

func writeFile(directory *os.Root, file File, set Set) (err error) {
	// Nobody but root reads it before it has its owner and mode.
	f, err := directory.OpenFile(file.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(file.Content); err != nil {
		return err
	}
	owner := set.ownerOf(file)
	if err := f.Chown(owner.UID, owner.GID); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), file.Perms)
}

// swap puts the links that users see in place before "..data" moves, so that a
// file of the new set is never missing once its content is there.
func swap(root *os.Root, generation string, set Set) error {
	for name := range topNames(set) {
		err := root.Symlink(path.Join(dataLink, name), name)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %q: %w", name, err)
		}
	}
	if err := root.Symlink(generation, dataLinkNew); err != nil {
		return fmt.Errorf("link the new files: %w", err)
	}
	if err := root.Rename(dataLinkNew, dataLink); err != nil {
		return fmt.Errorf("swap the files: %w", err)
	}
	return nil
}

// sweep removes every generation but the current one: the previous one, or what
// a process left behind that was killed while it wrote.
func sweep(root *os.Root) error {
	current, err := root.Readlink(dataLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the current generation: %w", err)
	}
	return removeTop(root, func(name string) bool {
		return strings.HasPrefix(name, hidden) && name != dataLink && name != current
	})
}

func removeStaleLinks(root *os.Root, set Set) error {
	names := topNames(set)
	return removeTop(root, func(name string) bool {
		return !strings.HasPrefix(name, hidden) && !names[name]
	})
}

func removeTop(root *os.Root, unwanted func(name string) bool) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list the volume: %w", err)
	}
	for _, entry := range entries {
		if !unwanted(entry.Name()) {
			continue
		}
		if err := root.RemoveAll(entry.Name()); err != nil {
			return fmt.Errorf("remove old files: %w", err)
		}
	}
	return nil
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
