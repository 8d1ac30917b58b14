package tmpfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A volume cannot take more kernel memory than its number of inodes says.
func TestReadUsage(t *testing.T) {
	payload := oneFile("one/two/a", "x")
	_, target := create(t, mebibyte, payload)
	usage, err := ReadUsage(target)
	must(t, err)
	if usage.BytesTotal != mebibyte || usage.BytesUsed != 4096 || usage.BytesAvailable != mebibyte-4096 || usage.InodesTotal != int64(payload.Inodes()) || usage.InodesUsed != 7 {
		t.Errorf("got %+v", usage)
	}
	if _, err := ReadUsage(t.TempDir()); !errors.Is(err, ErrNotMounted) {
		t.Errorf("a directory on disk: %v", err)
	}
}

// Memory is free after the unmount, or when the last process releases it.
func TestReleaseWatcher(t *testing.T) {
	watcher, err := NewReleaseWatcher()
	must(t, err)
	defer watcher.Close()
	tests := map[string]func(t *testing.T, target string) (release func()){
		"unused": func(*testing.T, string) func() { return nil },
		"a process with an open file": func(t *testing.T, target string) func() {
			file, err := os.Open(filepath.Join(target, "a"))
			must(t, err)
			return func() { must(t, file.Close()) }
		},
		"another mount": func(t *testing.T, target string) func() {
			view := t.TempDir()
			must(t, unix.Mount(target, view, "", unix.MS_BIND, ""))
			return func() { must(t, unix.Unmount(view, 0)) }
		},
	}
	for name, hold := range tests {
		t.Run(name, func(t *testing.T) {
			_, target := create(t, mebibyte, oneFile("a", "x"))
			release := hold(t, target)
			id, err := watcher.Watch(target)
			must(t, err)
			must(t, Remove(target))
			freed, _ := watcher.Freed()
			if release == nil != slices.Contains(freed, id) {
				t.Errorf("after the unmount, volumes %v are free", freed)
			}
			if release == nil {
				return
			}
			release()
			if freed, all := watcher.Freed(); !slices.Equal(freed, []int{id}) || all {
				t.Errorf("after the release, volumes %v are free; all: %t", freed, all)
			}
		})
	}
	if _, err := watcher.Watch(t.TempDir()); !errors.Is(err, ErrNotMounted) {
		t.Errorf("a directory on disk: %v", err)
	}
}
