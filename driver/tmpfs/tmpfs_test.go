package tmpfs_test

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

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

const mebibyte = 1 << 20

func newMounter(t *testing.T) *tmpfs.Mounter {
	t.Helper()
	mounter, err := tmpfs.NewMounter("csi.vaultmount.dev")
	if err != nil {
		t.Fatal(err)
	}
	return mounter
}

// newTarget returns the target path of a volume that is gone after the test.
func newTarget(t *testing.T) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "mount")
	t.Cleanup(func() {
		if err := tmpfs.Remove(target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return target
}

func oneFile(path, content string) tmpfs.Set {
	return tmpfs.Set{Files: []tmpfs.File{{Path: path, Content: []byte(content), Perms: 0o644}}}
}

func mustRead(t *testing.T, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func mountOptions(t *testing.T, target string) []string {
	t.Helper()
	for line := range strings.Lines(mustRead(t, "/proc/self/mountinfo")) {
		fields := strings.Fields(line)
		if fields[4] == target {
			return slices.Concat(strings.Split(fields[5], ","), strings.Split(fields[len(fields)-1], ","))
		}
	}
	return nil
}

func TestVolumeHasItsFilesOwnersAndOptions(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	set := tmpfs.Set{UID: 100, GID: 2000, Files: []tmpfs.File{
		{Path: "a.txt", Content: []byte("A"), Perms: 0o440},
		{Path: "conf/deep/b", Content: []byte("B"), Perms: 0o600},
	}}
	if _, err := mounter.Create(target, mebibyte, set); err != nil {
		t.Fatal(err)
	}
	for _, file := range set.Files {
		path := filepath.Join(target, file.Path)
		if got := mustRead(t, path); got != string(file.Content) {
			t.Errorf("%s holds %q", file.Path, got)
		}
		var stat syscall.Stat_t
		if err := syscall.Stat(path, &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Uid != 100 || stat.Gid != 2000 || stat.Mode&0o7777 != file.Perms {
			t.Errorf("%s has owner %d:%d, mode %o", file.Path, stat.Uid, stat.Gid, stat.Mode)
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

func TestReplaceSwapsTheWholeSet(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	if _, err := mounter.Create(target, mebibyte, tmpfs.Set{Files: []tmpfs.File{
		{Path: "a", Content: []byte("old"), Perms: 0o644}, {Path: "gone/x", Content: []byte("old"), Perms: 0o644},
	}}); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(filepath.Join(target, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, err = mounter.Replace(target, tmpfs.Set{Files: []tmpfs.File{
		{Path: "a", Content: []byte("new"), Perms: 0o600}, {Path: "come/y", Content: []byte("new"), Perms: 0o644},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, target, "a") + mustRead(t, target, "come/y"); got != "newnew" {
		t.Errorf("the files hold %q", got)
	}
	names, err := filepath.Glob(target + "/*")
	if err != nil || len(names) != 4 { // ..data, its directory, a, come
		t.Errorf("the volume lists %v, %v", names, err)
	}
	old := make([]byte, 3)
	if _, err := open.ReadAt(old, 0); err != nil || string(old) != "old" {
		t.Errorf("a file open since before reads %q, %v", old, err)
	}
	if !slices.Contains(mountOptions(t, target), "ro") {
		t.Error("the volume stays writable after a swap")
	}
}

func TestWrittenIsTheSetThatWasWritten(t *testing.T) {
	set := func(change func(*tmpfs.File)) tmpfs.Set {
		file := tmpfs.File{Path: "a", Content: []byte("content"), Perms: 0o644}
		change(&file)
		return tmpfs.Set{UID: 1, GID: 2, Files: []tmpfs.File{file, {Path: "b", Perms: 0o600}}}
	}
	same := set(func(*tmpfs.File) {})
	written, err := newMounter(t).Create(newTarget(t), mebibyte, same)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		set  tmpfs.Set
		want bool
	}{
		"the same":            {same, true},
		"in another order":    {tmpfs.Set{UID: 1, GID: 2, Files: []tmpfs.File{same.Files[1], same.Files[0]}}, true},
		"the owner by itself": {set(func(f *tmpfs.File) { f.Owner = &tmpfs.Owner{UID: 1, GID: 2} }), true},
		"another content":     {set(func(f *tmpfs.File) { f.Content = []byte("Content") }), false},
		"another mode":        {set(func(f *tmpfs.File) { f.Perms = 0o640 }), false},
		"another owner":       {set(func(f *tmpfs.File) { f.Owner = &tmpfs.Owner{UID: 1, GID: 3} }), false},
		"another path":        {set(func(f *tmpfs.File) { f.Path = "c" }), false},
		"one file less":       {tmpfs.Set{UID: 1, GID: 2, Files: same.Files[:1]}, false},
	} {
		if got := written.Is(test.set); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if (tmpfs.Written{}).Is(tmpfs.Set{}) {
		t.Error("an empty record says that a volume holds nothing")
	}
}

// A template may write more files when it is rendered again.
func TestReplaceTakesMoreFilesOnceTheVolumeIsGrown(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err != nil {
		t.Fatal(err)
	}
	more, paths := tmpfs.Set{}, []string{}
	for i := range 60 {
		paths = append(paths, fmt.Sprintf("part-%d", i))
		more.Files = append(more.Files, tmpfs.File{Path: paths[i], Content: []byte("x"), Perms: 0o644})
	}
	if _, err := mounter.Replace(target, more); !errors.Is(err, tmpfs.ErrFull) || !strings.Contains(err.Error(), "inodes are free") {
		t.Fatalf("with the inodes of one file: %v", err)
	}
	if got := mustRead(t, target, "a"); got != "x" {
		t.Errorf("after the error, the file holds %q", got)
	}
	if err := mounter.Grow(target, tmpfs.Inodes(paths)); err != nil {
		t.Fatal(err)
	}
	for _, set := range []tmpfs.Set{more, oneFile("a", "x"), more} {
		if _, err := mounter.Replace(target, set); err != nil {
			t.Fatal(err)
		}
	}
}

// A path as deep as one may be takes an inode for each directory, twice while it is
// replaced, however small the volume is.
func TestReplaceOfFilesInManyDirectories(t *testing.T) {
	mounter := newMounter(t)
	for _, depth := range []int{100, 511} {
		target := newTarget(t)
		path := strings.Repeat("d/", depth) + "f"
		if _, err := mounter.Create(target, 4*int64(os.Getpagesize()), oneFile(path, "first")); err != nil {
			t.Fatal(err)
		}
		for _, content := range []string{"second", "third"} {
			if _, err := mounter.Replace(target, oneFile(path, content)); err != nil {
				t.Fatalf("%d directories: %v", depth, err)
			}
			if got := mustRead(t, target, path); got != content {
				t.Errorf("%d directories: the file holds %q", depth, got)
			}
		}
	}
}

// What somebody has unmounted is not written to, wherever its directory is: on disk,
// or in another volume.
func TestReplaceWritesNothingBeneath(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	if _, err := mounter.Create(target, mebibyte, oneFile("a", "first")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
	for _, beneath := range []string{"disk", "tmpfs"} {
		if beneath == "tmpfs" {
			if err := unix.Mount("tmpfs", filepath.Dir(target), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(filepath.Dir(target), unix.MNT_DETACH)
			if err := os.Mkdir(target, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := mounter.Replace(target, oneFile("a", "second")); !errors.Is(err, tmpfs.ErrUnmounted) {
			t.Errorf("%s beneath: %v", beneath, err)
		}
		if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
			t.Errorf("%s beneath: it holds %v, %v", beneath, entries, err)
		}
	}
}

// A reader that resolves ..data once sees files of one generation, whenever it
// looks.
func TestReplaceIsAtomicForReaders(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	generation := func(i int) tmpfs.Set {
		content := fmt.Appendf(nil, "%d", i)
		return tmpfs.Set{Files: []tmpfs.File{{Path: "a", Content: content, Perms: 0o644}, {Path: "b", Content: content, Perms: 0o644}}}
	}
	if _, err := mounter.Create(target, mebibyte, generation(0)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reads := 0
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			directory, err := os.OpenRoot(filepath.Join(target, "..data"))
			if errors.Is(err, os.ErrNotExist) {
				continue // the kernel has read the link before the swap, and followed it after
			}
			if err != nil {
				t.Errorf("open the current generation: %v", err)
				return
			}
			a, errA := directory.ReadFile("a")
			b, errB := directory.ReadFile("b")
			directory.Close()
			// The generation may be removed between the two reads, never mixed.
			if errA == nil && errB == nil && string(a) != string(b) {
				t.Errorf("read generations %s and %s together", a, b)
				return
			}
			reads++
		}
	})
	for i := range 300 {
		if _, err := mounter.Replace(target, generation(i+1)); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	reader.Wait()
	if reads == 0 {
		t.Error("the reader never came to read")
	}
}

func TestCreateLeavesNothingAfterAnError(t *testing.T) {
	mounter := newMounter(t)
	t.Run("too large", func(t *testing.T) {
		target := newTarget(t)
		_, err := mounter.Create(target, 8192, oneFile("a", strings.Repeat("x", 4097)))
		if !errors.Is(err, tmpfs.ErrFull) || !strings.Contains(err.Error(), "raise the attribute size") {
			t.Errorf("got %v", err)
		}
		requireNothing(t, target)
	})
	t.Run("no parent", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "gone", "mount")
		if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err == nil {
			t.Error("a volume was created nowhere")
		}
		requireNothing(t, target)
	})
	t.Run("a file in the way", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "mount")
		if err := os.WriteFile(target, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err == nil {
			t.Error("a volume was created over a file")
		}
		if got := mustRead(t, target); got != "mine" {
			t.Errorf("the file holds %q", got)
		}
	})
	t.Run("a FIFO in the way", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "mount")
		must(t, unix.Mkfifo(target, 0o600))
		if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); !errors.Is(err, tmpfs.ErrOccupied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a directory with files in the way", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "mount")
		if err := os.MkdirAll(filepath.Join(target, "mine"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err == nil {
			t.Error("a volume was created over files")
		}
		if exists, _ := tmpfs.Exists(target); exists {
			t.Error("something is mounted")
		}
		if err := tmpfs.Remove(target); err == nil {
			t.Error("somebody's files were removed")
		}
	})
}

// A process that is being started holds the files that its parent has open until it
// runs its own program; a mount with a file open for writing stays writable.
func TestCreateWhileProcessesStart(t *testing.T) {
	mounter, targets := newMounter(t), t.TempDir()
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
	for i := range 1000 {
		target := filepath.Join(targets, fmt.Sprint(i))
		if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err != nil {
			t.Fatalf("volume %d: %v", i, err)
		}
		if err := tmpfs.Remove(target); err != nil {
			t.Fatal(err)
		}
	}
}

func requireNothing(t *testing.T, target string) {
	t.Helper()
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target path is still there: %v", err)
	}
	if options := mountOptions(t, target); options != nil {
		t.Error("the target path is still mounted")
	}
}

func TestRemove(t *testing.T) {
	mounter := newMounter(t)
	t.Run("a volume in use", func(t *testing.T) {
		target := newTarget(t)
		if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err != nil {
			t.Fatal(err)
		}
		open, err := os.Open(filepath.Join(target, "a"))
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		if err := tmpfs.Remove(target); err != nil {
			t.Error(err)
		}
		requireNothing(t, target)
	})
	t.Run("never mounted", func(t *testing.T) {
		target := newTarget(t)
		if err := os.Mkdir(target, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := tmpfs.Remove(target); err != nil {
			t.Error(err)
		}
		requireNothing(t, target)
	})
	t.Run("nothing there", func(t *testing.T) {
		if err := tmpfs.Remove(newTarget(t)); err != nil {
			t.Error(err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		target := filepath.Join(t.TempDir(), "mount")
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := tmpfs.Remove(target); err == nil {
			t.Error("somebody's file was removed")
		}
	})
}

func TestExistsRefusesAForeignMount(t *testing.T) {
	target := t.TempDir()
	if err := unix.Mount("proc", target, "proc", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(target, 0)
	if exists, err := tmpfs.Exists(target); exists || err == nil {
		t.Errorf("got %t, %v", exists, err)
	}
}

func TestReadUsage(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	if _, err := mounter.Create(target, mebibyte, oneFile("a", "x")); err != nil {
		t.Fatal(err)
	}
	usage, err := tmpfs.ReadUsage(target)
	if err != nil {
		t.Fatal(err)
	}
	if usage.BytesTotal != mebibyte || usage.BytesUsed != 4096 || usage.BytesAvailable != mebibyte-4096 || usage.InodesUsed < 4 || usage.InodesAvailable < 4 {
		t.Errorf("got %+v", usage)
	}
}
