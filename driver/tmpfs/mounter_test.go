package tmpfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests of this package mount, so they need root.

const mebibyte = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newMounter(t testing.TB) *Mounter {
	t.Helper()
	mounter, err := NewMounter("csi.vaultmount.dev")
	must(t, err)
	return mounter
}

// newTarget returns a target path whose volume is gone after the test.
func newTarget(t testing.TB) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "mount")
	t.Cleanup(func() { must(t, Remove(target)) })
	return target
}

// create mounts a volume, which is gone after the test.
func create(t testing.TB, size int64, payload Payload) (*Mounter, string) {
	t.Helper()
	mounter, target := newMounter(t), newTarget(t)
	must(t, mounter.Create(target, size, payload))
	return mounter, target
}

func oneFile(path, content string) Payload {
	return Payload{{Path: path, Content: []byte(content), Perms: 0o644}}
}

func readFile(t *testing.T, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	must(t, err)
	return string(content)
}

func mountOptions(t *testing.T, target string) []string {
	t.Helper()
	for line := range strings.Lines(readFile(t, "/proc/self/mountinfo")) {
		fields := strings.Fields(line)
		if fields[4] == target {
			return slices.Concat(strings.Split(fields[5], ","), strings.Split(fields[len(fields)-1], ","))
		}
	}
	return nil
}

func requireNothing(t *testing.T, target string) {
	t.Helper()
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target path is still there: %v", err)
	}
	if mountOptions(t, target) != nil {
		t.Error("the target path is still mounted")
	}
}

func TestVolumeHasItsFilesOwnersAndOptions(t *testing.T) {
	payload := Payload{
		{Path: "a.txt", Content: []byte("A"), Perms: 0o440, UID: 100, GID: 2000},
		{Path: "conf/deep/b", Content: []byte("B"), Perms: 0o600, UID: 5, GID: 6},
	}
	defer unix.Umask(unix.Umask(0o077)) // which does not keep containers out of directories
	mounter, target := create(t, mebibyte, payload)
	for _, file := range payload {
		path := filepath.Join(target, file.Path)
		if got := readFile(t, path); got != string(file.Content) {
			t.Errorf("%s holds %q", file.Path, got)
		}
		var stat syscall.Stat_t
		must(t, syscall.Stat(path, &stat))
		if int(stat.Uid) != file.UID || int(stat.Gid) != file.GID || stat.Mode&0o7777 != file.Perms {
			t.Errorf("%s has owner %d:%d, mode %o", file.Path, stat.Uid, stat.Gid, stat.Mode)
		}
	}
	for _, directory := range []string{".", "..data/", "conf", "conf/deep"} {
		info, err := os.Stat(filepath.Join(target, directory))
		must(t, err)
		if info.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %s", directory, info.Mode())
		}
	}
	options := mountOptions(t, target)
	for _, want := range []string{"ro", "nosuid", "nodev", "noexec", "size=1024k", "mode=755"} {
		if !slices.Contains(options, want) {
			t.Errorf("mount options %v lack %s", options, want)
		}
	}
	if mounter.NoSwap() != slices.Contains(options, "noswap") {
		t.Errorf("mount options are %v, and noswap is available: %t", options, mounter.NoSwap())
	}
	if err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing into the volume: %v, want a read-only file system", err)
	}
}

func TestCreateLeavesNothingAfterAnError(t *testing.T) {
	mounter := newMounter(t)
	for name, test := range map[string]struct {
		parent, size int
		want         error
	}{
		"too large": {size: 8192, want: ErrFull},
		"no parent": {parent: 1, size: mebibyte, want: os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), strings.Repeat("gone/", test.parent), "mount")
			if err := mounter.Create(target, int64(test.size), oneFile("a", strings.Repeat("x", 4097))); !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
			requireNothing(t, target)
		})
	}
	for name, occupy := range map[string]func(string) error{
		"a file":                 func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"a FIFO":                 func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory with files": func(path string) error { return os.MkdirAll(filepath.Join(path, "mine"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "mount")
			must(t, occupy(target))
			before, err := os.Lstat(target)
			must(t, err)
			if err := mounter.Create(target, mebibyte, oneFile("a", "x")); !errors.Is(err, ErrOccupied) {
				t.Errorf("got %v", err)
			}
			if err := Remove(target); err == nil {
				t.Error("it was removed")
			}
			if after, err := os.Lstat(target); err != nil || !os.SameFile(before, after) {
				t.Errorf("something else is there: %v", err)
			}
		})
	}
}

func TestFullVolumeSaysWhatSizeItNeeds(t *testing.T) {
	for content, want := range map[int]string{
		3_002_368: "they need 5.7 MiB (files are kept twice), size is 1.0 MiB; set size: 6Mi",
		524_289:   "they need 1.0 MiB (files are kept twice), size is 1.0 MiB; set size: 2Mi",
	} {
		err := newMounter(t).Create(filepath.Join(t.TempDir(), "mount"), mebibyte, oneFile("a", strings.Repeat("x", content)))
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A process that starts holds the open files of its parent until it runs its own program, and
// a mount with a file open for writing stays writable.
func TestCreateWhileProcessesStart(t *testing.T) {
	mounter, targets := newMounter(t), t.TempDir()
	// With its first process, Go tries once whether it can use pidfds, by a process that it
	// starts outside of ForkLock. The driver starts a worker before it creates a volume.
	must(t, exec.Command("/bin/true").Run())
	starting, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for starting.Err() == nil {
				if err := exec.Command("/bin/true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer group.Wait()
	defer stop()
	for i := range 100 {
		target := filepath.Join(targets, fmt.Sprint(i))
		if err := mounter.Create(target, mebibyte, oneFile("a", "x")); err != nil {
			t.Fatalf("volume %d: %v", i, err)
		}
		must(t, Remove(target))
	}
}

func TestRemove(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, target string){
		"a volume in use": func(t *testing.T, target string) {
			must(t, newMounter(t).Create(target, mebibyte, oneFile("a", "x")))
			file, err := os.Open(filepath.Join(target, "a"))
			must(t, err)
			t.Cleanup(func() { must(t, file.Close()) })
		},
		"never mounted": func(t *testing.T, target string) { must(t, os.Mkdir(target, 0o750)) },
		"nothing there": func(*testing.T, string) {},
	} {
		t.Run(name, func(t *testing.T) {
			target := newTarget(t)
			prepare(t, target)
			must(t, Remove(target))
			requireNothing(t, target)
		})
	}
}

func TestExistsRejectsAnotherFileSystem(t *testing.T) {
	target := t.TempDir()
	must(t, unix.Mount("proc", target, "proc", 0, ""))
	defer unix.Unmount(target, 0)
	if exists, err := Exists(target); exists || err == nil {
		t.Errorf("got %t, %v", exists, err)
	}
}
