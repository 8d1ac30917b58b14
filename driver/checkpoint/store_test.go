package checkpoint

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// inDirectory replaces the mount, which needs root; test/component has it.
type inDirectory struct {
	directory string
	root      *os.Root
}

func (d inDirectory) Root() *os.Root { return d.root }

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
	if err := os.MkdirAll(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(klog.Background(), inDirectory{directory, root})
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

// A state that is full keeps what it has, and takes tokens to revoke nevertheless.
func TestFullStore(t *testing.T) {
	t.Parallel()
	page := int64(os.Getpagesize())
	s := openIn(t, filepath.Join(t.TempDir(), "state"))
	save := func(key string, size int64) error { return s.Save(key, make([]byte, size)) }
	must(t, save("volume-1", page+1)) // two pages
	must(t, save("mount-1", 0))       // one
	s.note("volume-2", Records-4*page)
	must(t, save("volume-3", page))
	if err := save("volume-4", 1); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "41943040 of 41943040 bytes are taken") {
		t.Errorf("one page more: %v", err)
	}
	must(t, save("volume-1", 2*page)) // as large as before
	if err := save("volume-1", 2*page+1); !errors.Is(err, ErrFull) {
		t.Errorf("one page larger: %v", err)
	}
	if got, err := s.Load("volume-1"); err != nil || len(got["volume-1"]) != int(2*page) {
		t.Errorf("the record is %d bytes, %v", len(got["volume-1"]), err)
	}
	must(t, save(Reserved+"1", page))
	s.note(Reserved+"2", Reserve-2*page)
	must(t, save(Reserved+"3", page))
	if err := save(Reserved+"4", 1); !errors.Is(err, ErrFull) {
		t.Errorf("beyond the reserve: %v", err)
	}
	must(t, s.Delete("volume-3"))
	must(t, save("volume-4", 1))
	must(t, s.Close())
}

// What a process has left is counted by the next.
func TestStoreCountsWhatIsThere(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "state")
	s := openIn(t, directory)
	for _, key := range []string{"volume-1", "volume-2", Reserved + "1"} {
		must(t, s.Save(key, make([]byte, os.Getpagesize()+1)))
	}
	must(t, s.Close())
	s = openIn(t, directory)
	if page := int64(os.Getpagesize()); s.normal != 4*page || s.reserved != 2*page {
		t.Errorf("records take %d bytes, reserved ones %d", s.normal, s.reserved)
	}
	for _, key := range []string{"volume-1", "volume-2", Reserved + "1"} {
		must(t, s.Delete(key))
	}
	if s.normal != 0 || s.reserved != 0 || len(s.sizes) > 0 {
		t.Errorf("without a record, they take %d bytes, reserved ones %d", s.normal, s.reserved)
	}
	must(t, s.Close())
}

// A record over its limit is not read. The start of the driver says so once.
func TestLoadDropsARecordOverTheLimit(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "state")
	must(t, os.MkdirAll(directory, 0o700))
	for name, size := range map[string]int{"volume-1": limits.CheckpointBytes.Max(), "volume-2": limits.CheckpointBytes.Max() + 1} {
		must(t, os.WriteFile(filepath.Join(directory, name), nil, 0o600))
		must(t, os.Truncate(filepath.Join(directory, name), int64(size)))
	}
	s := openIn(t, directory)
	var log bytes.Buffer
	s.logger = textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log)))
	for range 2 {
		records, err := s.Load("volume-")
		if err != nil || len(records) != 1 || len(records["volume-1"]) != limits.CheckpointBytes.Max() {
			t.Errorf("%d records are read, %v", len(records), err)
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), `record="volume-2"`) || !strings.Contains(log.String(), "checkpoint-bytes") {
		t.Errorf("the log has %d lines:\n%s", lines, log.String())
	}
	must(t, s.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
