package state

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

// inDirectory stands for the mount, which needs root; test/component has it.
type inDirectory struct {
	directory string
	root      *os.Root
	attach    func() (bool, error)
}

func (d inDirectory) Root() *os.Root { return d.root }

func (d inDirectory) Attach() (bool, error) { return d.attach() }

func (d inDirectory) Close(remove bool) error {
	err := d.root.Close()
	if remove {
		err = errors.Join(err, os.Remove(d.directory))
	}
	return err
}

// openIn opens a store in a directory, which it makes.
func openIn(t *testing.T, directory string) *Store {
	t.Helper()
	return openWith(t, directory, func() (bool, error) { return false, nil })
}

func openWith(t *testing.T, directory string, attach func() (bool, error)) *Store {
	t.Helper()
	if err := os.MkdirAll(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(klog.Background(), inDirectory{directory, root, attach})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "plugin", "state")
	s := openIn(t, directory)
	for key, record := range map[string]string{"volume-1": "old", "volume-2": "two", "session-1": "s"} {
		if err := s.Save(key, []byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Save("volume-1", []byte("one")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // deleting what is not there succeeds
		if err := s.Delete("volume-2"); err != nil {
			t.Fatal(err)
		}
	}
	// A process that was killed while it wrote.
	if err := os.WriteFile(filepath.Join(directory, "volume-3"+temporary), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openIn(t, directory)
	t.Cleanup(func() { again.Close() })
	got, err := again.Load("volume-")
	if err != nil || len(got) != 1 || string(got["volume-1"]) != "one" {
		t.Errorf("got %q, %v", got, err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) != 2 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	all, err := again.Load("")
	if keys := slices.Sorted(maps.Keys(all)); err != nil || !slices.Equal(keys, []string{"session-1", "volume-1"}) {
		t.Errorf("all records are %q, %v", keys, err)
	}
}

func TestStoreRefusesKeysThatLeadElsewhere(t *testing.T) {
	t.Parallel()
	s := openIn(t, filepath.Join(t.TempDir(), "state"))
	t.Cleanup(func() { s.Close() })
	for _, key := range []string{"", "..", "../x", "a/b", ".hidden", "volume-1.new", "A", "é", strings.Repeat("a", 201)} {
		if s.Save(key, nil) == nil || s.Delete(key) == nil {
			t.Errorf("%q is taken for a key", key)
		}
	}
}
