package tmpfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func openState(t *testing.T, target string) *StateMount {
	t.Helper()
	state, err := newMounter(t).OpenStateMount(target, mebibyte)
	must(t, err)
	t.Cleanup(func() {
		for unix.Unmount(target, unix.MNT_DETACH) == nil { // also what hid it
		}
	})
	return state
}

// After an unmount in any way, files are written to memory and none to the disk.
func TestStateMountOutlivesItsUnmount(t *testing.T) {
	for name, unmount := range map[string]func(target string) error{
		"lazily":                  func(target string) error { return unix.Unmount(target, unix.MNT_DETACH) },
		"by force":                func(target string) error { return unix.Unmount(target, unix.MNT_FORCE|unix.MNT_DETACH) },
		"hidden by another mount": func(target string) error { return unix.Mount("tmpfs", target, "tmpfs", 0, "") },
	} {
		t.Run(name, func(t *testing.T) {
			target := newTarget(t)
			state := openState(t, target)
			if err := unix.Unmount(target, 0); err == nil || !state.IsAttached() {
				t.Fatalf("it can be unmounted while it is in use: %v", err)
			}
			must(t, unmount(target))
			if state.IsAttached() {
				t.Error("it is still attached")
			}
			must(t, state.Root().WriteFile("record", []byte("r"), 0o600))
			if got, err := state.Root().ReadFile("record"); err != nil || string(got) != "r" {
				t.Errorf("the record holds %q, %v", got, err)
			}
			must(t, state.Close(false))
			for unix.Unmount(target, unix.MNT_DETACH) == nil {
			}
			if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
				t.Errorf("on the disk is %v, %v", entries, err)
			}
		})
	}
}

// A process leaves it to the next one, or removes it.
func TestStateMountCloses(t *testing.T) {
	target := newTarget(t)
	first := openState(t, target)
	must(t, first.Root().WriteFile("record", nil, 0o600))
	must(t, first.Close(false))
	next := openState(t, target)
	if usage, err := next.Usage(); err != nil || usage.BytesTotal != mebibyte || usage.InodesUsed != 2 {
		t.Errorf("the next process finds %+v, %v", usage, err)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its mode is %s, %v", info.Mode(), err)
	}
	must(t, next.Close(true))
	requireNothing(t, target)
}

func TestStateMountHidesNoFiles(t *testing.T) {
	target := t.TempDir()
	must(t, os.WriteFile(filepath.Join(target, "mine"), nil, 0o600))
	if _, err := newMounter(t).OpenStateMount(target, mebibyte); err == nil {
		t.Error("it hides a file")
	}
}
