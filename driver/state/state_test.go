package state

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inDirectory stands for the mount, which needs root; test/component has it.
type inDirectory struct{}

func (inDirectory) CreatePrivate(target string, _ int64) error { return os.MkdirAll(target, 0o700) }

func (inDirectory) RemovePrivate(target string) error { return os.Remove(target) }

func TestStore(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "plugin", "state")
	s, err := Open(inDirectory{}, directory)
	if err != nil {
		t.Fatal(err)
	}
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
	again, err := Open(inDirectory{}, directory)
	if err != nil {
		t.Fatal(err)
	}
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
	s, err := Open(inDirectory{}, filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "..", "../x", "a/b", ".hidden", "volume-1.new", "A", "é", strings.Repeat("a", 201)} {
		if s.Save(key, nil) == nil || s.Delete(key) == nil {
			t.Errorf("%q is taken for a key", key)
		}
	}
}
