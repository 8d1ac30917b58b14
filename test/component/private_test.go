package component

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	state "github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// openStore opens a store at a target that is gone after the test.
func openStore(t *testing.T, mounter *tmpfs.Mounter, target string) *state.Store {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		t.Fatal(err)
	}
	private, err := mounter.OpenStateMount(target, state.Size)
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(klog.Background(), private)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// beneath shows what is on the disk at a path, whatever is mounted there.
func beneath(t *testing.T, target string) (names func() []string) {
	t.Helper()
	view := t.TempDir()
	if err := unix.Mount(filepath.Dir(target), view, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(view, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return func() []string {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(view, filepath.Base(target)))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names
	}
}

// However somebody takes a private tmpfs away from its path, what is written goes
// to memory, and all of it can be brought back: again and again.
func TestPrivateTmpfsOutlivesItsUnmount(t *testing.T) {
	t.Parallel()
	unmount := func(flags int) func(string) error {
		return func(target string) error { return unix.Unmount(target, flags) }
	}
	tests := []struct {
		name string
		take func(target string) error
	}{
		{"unmounted", unmount(0)},
		{"unmounted while in use", unmount(unix.MNT_DETACH)},
		{"unmounted by force", unmount(unix.MNT_FORCE | unix.MNT_DETACH)},
		{"unmounted and its directory removed", func(target string) error {
			return errors.Join(unix.Unmount(target, unix.MNT_DETACH), os.Remove(target))
		}},
		{"hidden by another mount", func(target string) error { return unix.Mount("tmpfs", target, "tmpfs", 0, "") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			private := openPrivate(t, target)
			defer private.Close(false)
			onDisk := beneath(t, target)
			if anew, err := private.Attach(); anew || err != nil || !private.IsAttached() {
				t.Fatalf("before: attached anew %t, %v", anew, err)
			}
			for i, name := range []string{"first", "second", "third"} {
				if i > 0 { // it is in use by now
					test.take = tests[1].take
				}
				if err := test.take(target); err != nil {
					t.Fatal(err)
				}
				if private.IsAttached() {
					t.Fatal("it is still there, so nothing is tested")
				}
				if err := private.Root().WriteFile(name, []byte(name), 0o600); err != nil {
					t.Fatal(err)
				}
				if anew, err := private.Attach(); !anew || err != nil || !private.IsAttached() {
					t.Fatalf("attached anew %t, %v", anew, err)
				}
				for _, file := range []string{"first", "second", "third"}[:i+1] {
					if got := mustRead(t, target, file); got != file {
						t.Errorf("%s holds %q", file, got)
					}
				}
			}
			if got := onDisk(); len(got) > 0 {
				t.Errorf("on the disk are %q", got)
			}
		})
	}
}

func openPrivate(t *testing.T, target string) *tmpfs.StateMount {
	t.Helper()
	private, err := newMounter(t).OpenStateMount(target, mebibyte)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for unix.Unmount(target, unix.MNT_DETACH) == nil { // also what hid it
		}
	})
	return private
}

// Nothing of somebody else is hidden, and the way to it is in the error.
func TestPrivateTmpfsDoesNotHideFiles(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	private := openPrivate(t, target)
	defer private.Close(false)
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(target, "foreign")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if anew, err := private.Attach(); anew || !errors.Is(err, tmpfs.ErrOccupied) || private.IsAttached() {
		t.Errorf("attached anew %t, %v", anew, err)
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if anew, err := private.Attach(); !anew || err != nil {
		t.Errorf("when nothing is in the way: attached anew %t, %v", anew, err)
	}
}

// A process that ends leaves it where the next one finds it, or takes it away.
func TestPrivateTmpfsCloses(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	first := openPrivate(t, target)
	if err := first.Root().WriteFile("record", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(false); err != nil {
		t.Fatal(err)
	}
	next := openPrivate(t, target)
	if usage, err := next.Usage(); err != nil || usage.BytesTotal != mebibyte || usage.InodesUsed != 2 {
		t.Errorf("the next process finds %+v, %v", usage, err)
	}
	if err := next.Close(true); err != nil {
		t.Error(err)
	}
	requireNothing(t, target)
}
