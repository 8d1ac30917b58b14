// Package state keeps what the driver must know of its volumes when it starts
// again: one record a file, in a tmpfs beside the CSI socket that only root may
// look into. So it is in the same memory as the volumes, and lives exactly as
// long as they do: it outlives the process, and goes with a reboot as they go.
//
// It knows nothing of what the records mean, and it is never visible to a pod.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Size limits the state of a node in bytes: a few records of a page or two for each volume.
const Size = 64 << 20

// Mounter attaches a tmpfs that only root may look into, unless one is attached,
// and takes it away, unless somebody uses it.
type Mounter interface {
	CreatePrivate(target string, sizeBytes int64) error
	RemovePrivate(target string) error
}

// Store is a directory of records. It may be used concurrently for different
// records.
type Store struct {
	mounter   Mounter
	directory string
}

// temporary is the suffix of a record that is being written.
const temporary = ".new"

// Open returns the store in a directory, which it mounts if no earlier process
// has. What such a process left half written is removed.
func Open(mounter Mounter, directory string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(directory), 0o700); err != nil {
		return nil, fmt.Errorf("create the directory of the state: %w", err)
	}
	if err := mounter.CreatePrivate(directory, Size); err != nil {
		return nil, fmt.Errorf("mount the state: %w", err)
	}
	s := &Store{mounter: mounter, directory: directory}
	names, err := s.names("")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, temporary) {
			if err := os.Remove(filepath.Join(directory, name)); err != nil {
				return nil, fmt.Errorf("remove a record that was not finished: %w", err)
			}
		}
	}
	return s, nil
}

// Save replaces a record, as a whole or not at all. A process that is killed
// leaves the old one or the new one; nothing is synced, since memory that is lost
// takes the volumes along.
func (s *Store) Save(key string, record []byte) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+temporary, record, 0o600); err != nil {
		return errors.Join(fmt.Errorf("write a record: %w", err), ignoreAbsent(os.Remove(path+temporary)))
	}
	if err := os.Rename(path+temporary, path); err != nil {
		return fmt.Errorf("put a record in place: %w", err)
	}
	return nil
}

// Delete removes a record. It succeeds when there is none.
func (s *Store) Delete(key string) error {
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if err := ignoreAbsent(os.Remove(path)); err != nil {
		return fmt.Errorf("remove a record: %w", err)
	}
	return nil
}

// Discard takes the tmpfs away if it holds no record, so that nothing is left of a
// driver that will not start again. The store is not used after it.
func (s *Store) Discard() error {
	names, err := s.names("")
	if err != nil || len(names) > 0 {
		return err
	}
	if err := s.mounter.RemovePrivate(s.directory); err != nil {
		return fmt.Errorf("unmount the state: %w", err)
	}
	return nil
}

// Load returns the records whose keys start with prefix.
func (s *Store) Load(prefix string) (map[string][]byte, error) {
	names, err := s.names(prefix)
	if err != nil {
		return nil, err
	}
	records := map[string][]byte{}
	for _, name := range names {
		if strings.HasSuffix(name, temporary) {
			continue
		}
		record, err := os.ReadFile(filepath.Join(s.directory, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read a record: %w", err)
		}
		records[name] = record
	}
	return records, nil
}

func (s *Store) names(prefix string) ([]string, error) {
	entries, err := os.ReadDir(s.directory)
	if err != nil {
		return nil, fmt.Errorf("list the state: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// path is the file of a record. Keys are letters, digits and hyphens, so none
// leads elsewhere.
func (s *Store) path(key string) (string, error) {
	if key == "" || len(key) > longestKey || strings.ContainsFunc(key, isForeign) {
		return "", fmt.Errorf("%q is not the key of a record", key)
	}
	return filepath.Join(s.directory, key), nil
}

// longestKey is in bytes, and leaves room for the suffix in a file's name.
const longestKey = 200

func isForeign(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' }

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
