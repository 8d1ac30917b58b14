package tmpfs

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The layout is that of the kubelet's AtomicWriter, which programs that watch Secret and
// ConfigMap volumes know:
//
//	..<name>/conf/app.txt    the data directory
//	..data -> ..<name>       swapped by rename
//	conf -> ..data/conf      a user-visible name
const (
	dataLink = "..data"
	hidden   = ".."
)

// Payload is the files that a volume holds at one time.
type Payload []File

// File is one file of a payload.
type File struct {
	// Path is relative and clean, and no part of it starts with "..".
	Path    string
	Content []byte
	// Perms are permission bits as chmod(2) takes them.
	Perms    uint32
	UID, GID int
}

// Digest is a SHA-256 of a payload: of each file's path, content, size, mode and owner. The
// driver compares a new payload with the digest of the one that it wrote, and never with the
// volume, where a container may have put files of any size and type.
type Digest []byte

// Digest returns the digest of the payload, for files in any order.
func (p Payload) Digest() Digest {
	sorted := slices.SortedFunc(slices.Values(p), func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	hash := sha256.New()
	for _, file := range sorted {
		fmt.Fprintf(hash, "%q %o %d %d %d ", file.Path, file.Perms, file.UID, file.GID, len(file.Content))
		hash.Write(file.Content)
	}
	return hash.Sum(nil)
}

// Equal reports whether both are digests of the same payload. An empty digest is that of an
// unknown payload, and equals none.
func (d Digest) Equal(other Digest) bool { return len(d) > 0 && bytes.Equal(d, other) }

// userVisibleNames are the names at the top of the volume: each file, or the first directory
// on its path.
func (p Payload) userVisibleNames() map[string]bool {
	names := map[string]bool{}
	for _, file := range p {
		name, _, _ := strings.Cut(file.Path, "/")
		names[name] = true
	}
	return names
}

// replace writes the payload in place of the one before.
func (t topDirectory) replace(payload Payload) error {
	// Files that an earlier process left, or that a container made, take space. A file that
	// cannot be removed is no error if the payload fits nevertheless.
	obstacle := t.removeObsolete(nil)
	if err := t.write(payload); err != nil {
		return errors.Join(err, obstacle)
	}
	_ = t.removeObsolete(payload.userVisibleNames()) // the next replacement tries again
	return nil
}

// write makes a data directory of the payload and swaps "..data" to it. After an error
// nothing is left of it.
func (t topDirectory) write(payload Payload) error {
	dataDir := newName()
	err := t.writeDataDir(dataDir, payload)
	if err == nil {
		err = t.swap(dataDir, payload)
	}
	if err != nil {
		err = errors.Join(err, t.remove([]string{dataDir}))
		return t.explainFull(err, payload)
	}
	return nil
}

func (t topDirectory) writeDataDir(name string, payload Payload) error {
	dataDir, err := makeDirectory(t.fd, name)
	if err != nil {
		return fmt.Errorf("create the data directory: %w", err)
	}
	defer unix.Close(dataDir)
	for _, file := range payload {
		parent, err := makeParents(dataDir, file.Path)
		if err != nil {
			return fmt.Errorf("create the directory of %q: %w", file.Path, err)
		}
		err = writeFile(parent, file)
		_ = unix.Close(parent)
		if err != nil {
			return fmt.Errorf("write file %q: %w", file.Path, err)
		}
	}
	return nil
}

// writeFile creates a new, regular file (O_EXCL). Only root reads it before it has its owner
// and mode.
func writeFile(parent int, file File) (err error) {
	fd, err := unix.Openat(parent, path.Base(file.Path), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "")
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(file.Content); err != nil {
		return err
	}
	if err := unix.Fchown(fd, file.UID, file.GID); err != nil {
		return err
	}
	return unix.Fchmod(fd, file.Perms)
}

// swap creates the user-visible links before it moves "..data", so that a file is never
// missing once its content is there. After an error it leaves no new link.
func (t topDirectory) swap(dataDir string, payload Payload) (err error) {
	var created []string
	defer func() {
		if err != nil {
			err = errors.Join(err, t.remove(created))
		}
	}()
	for name := range payload.userVisibleNames() {
		if t.linksTo(name, path.Join(dataLink, name)) {
			continue
		}
		if err := t.link(path.Join(dataLink, name), name); err != nil {
			return fmt.Errorf("link %q: %w", name, err)
		}
		created = append(created, name)
	}
	if err := t.link(dataDir, dataLink); err != nil {
		return fmt.Errorf("swap the data directory: %w", err)
	}
	return nil
}

// removeObsolete removes all hidden entries but the current data directory: the previous
// one, or one that a process did not finish. With wanted names, it removes the links to other
// names as well. It keeps the files that a container made.
func (t topDirectory) removeObsolete(wanted map[string]bool) error {
	entries, err := readNames(t.fd)
	if err != nil {
		return err
	}
	current := t.readLink(dataLink)
	return t.remove(slices.DeleteFunc(entries, func(name string) bool {
		if strings.HasPrefix(name, hidden) {
			return name == dataLink || name == current
		}
		return wanted == nil || wanted[name] || !t.linksTo(name, path.Join(dataLink, name))
	}))
}

// newName is a hidden name that nobody can guess.
func newName() string { return hidden + rand.Text() }
