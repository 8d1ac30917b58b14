package tmpfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// Memory is free with the unmount, or when the last process lets go. Needs root.
func TestReleases(t *testing.T) {
	tests := map[string]func(t *testing.T, target string) (letGo func()){
		"nobody": func(*testing.T, string) func() { return nil },
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
			releases, err := tmpfs.NewReleases()
			must(t, err)
			defer releases.Close()
			target := newTarget(t)
			_, err = newMounter(t).Create(target, mebibyte, oneFile("a", "x"))
			must(t, err)
			letGo := hold(t, target)
			id, err := releases.Watch(target)
			must(t, err)
			must(t, tmpfs.Remove(target))
			freed, _ := releases.Freed()
			if letGo == nil != slices.Contains(freed, id) {
				t.Errorf("after the unmount, volumes %v are free", freed)
			}
			if letGo == nil {
				return
			}
			letGo()
			if freed, all := releases.Freed(); !slices.Equal(freed, []int{id}) || all {
				t.Errorf("once it has let go, volumes %v are free; all: %t", freed, all)
			}
		})
	}
	releases, err := tmpfs.NewReleases()
	must(t, err)
	defer releases.Close()
	if _, err := releases.Watch(t.TempDir()); !errors.Is(err, tmpfs.ErrUnmounted) {
		t.Errorf("a directory on disk: %v", err)
	}
}
