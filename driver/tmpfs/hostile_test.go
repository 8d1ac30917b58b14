package tmpfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider/cost"
)

// writableView is the volume as a container sees it whose runtime takes read-only off its
// mount, as runc does since 1.2. Needs root.
func writableView(t *testing.T, target string) string {
	t.Helper()
	view := t.TempDir()
	must(t, unix.Mount(target, view, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(view, unix.MNT_DETACH)) })
	must(t, unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	return view
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever a container puts into the volume, a replacement neither blocks nor reads it,
// and the new files are there after it.
func TestReplaceInAVolumeThatAContainerWrites(t *testing.T) {
	const a, nested = "..data/a", "..data/conf/b"
	inPlaceOf := func(name string, make func(path string) error) func(*testing.T, string) {
		return func(t *testing.T, view string) {
			path := filepath.Join(view, name)
			must(t, os.RemoveAll(path))
			must(t, make(path))
		}
	}
	fifo := func(path string) error { return unix.Mkfifo(path, 0o666) }
	link := func(path string) error { return os.Symlink("/etc", path) }
	within := func(path string) error { return os.Symlink("..data", path) }
	directory := func(path string) error { return os.MkdirAll(path+"/x/y", 0o777) }
	tests := map[string]func(t *testing.T, view string){
		"a file of 1 TiB":                    func(t *testing.T, view string) { must(t, os.Truncate(filepath.Join(view, a), 1<<40)) },
		"a FIFO as a file":                   inPlaceOf(a, fifo),
		"a link as a file":                   inPlaceOf(a, link),
		"a directory as a file":              inPlaceOf(a, directory),
		"a FIFO as a directory":              inPlaceOf("..data/conf", fifo),
		"a link as a directory":              inPlaceOf("..data/conf", link),
		"a FIFO as a link":                   inPlaceOf("a", fifo),
		"another link":                       inPlaceOf("a", link),
		"a directory as a link":              inPlaceOf("conf", directory),
		"a FIFO as ..data":                   inPlaceOf("..data", fifo),
		"a link out of the volume as ..data": inPlaceOf("..data", link),
		"a link to itself as ..data":         inPlaceOf("..data", within),
		"a directory as ..data":              inPlaceOf("..data", directory),
		"a FIFO as an old generation":        inPlaceOf("..old", fifo),
		"a link as an old generation":        inPlaceOf("..old", link),
		"as many nested directories as it holds": func(t *testing.T, view string) {
			must(t, os.Chdir(view))
			defer func() { must(t, os.Chdir("/")) }()
			name := "..deep"
			for {
				if err := os.Mkdir(name, 0o777); errors.Is(err, unix.ENOSPC) {
					return
				} else if err != nil {
					t.Fatal(err)
				}
				must(t, os.Chdir(name))
				name = "d"
			}
		},
		"a mount over the files": func(t *testing.T, view string) {
			generation, err := filepath.EvalSymlinks(filepath.Join(view, "..data"))
			must(t, err)
			must(t, unix.Mount("tmpfs", generation, "tmpfs", 0, ""))
			t.Cleanup(func() { _ = unix.Unmount(generation, unix.MNT_DETACH) })
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			mounter, target := newMounter(t), newTarget(t)
			set := func(content string) tmpfs.Set {
				return tmpfs.Set{Files: []tmpfs.File{
					{Path: "a", Content: []byte(content), Perms: 0o644}, {Path: "conf/b", Content: []byte(content), Perms: 0o644},
				}}
			}
			_, err := mounter.Create(target, mebibyte, set("first"))
			must(t, err)
			must(t, mounter.Grow(target, 400))
			view := writableView(t, target)
			// Each entry that a container made is removed for less than 1 KiB of garbage.
			var volume unix.Statfs_t
			must(t, unix.Statfs(view, &volume))
			most := mebibyte + volume.Files<<10
			change(t, view)
			for _, content := range []string{"second", "third"} {
				used := cost.Measure(func() { _, err = mounter.Replace(target, set(content)) })
				if err != nil {
					t.Fatalf("replace with the %s content: %v", content, err)
				}
				if used.Allocated > most {
					t.Errorf("a replacement of two files allocates %d bytes, more than %d", used.Allocated, most)
				}
			}
			for _, file := range []string{"a", "conf/b", a, nested} {
				info, err := os.Lstat(filepath.Join(target, file))
				must(t, err)
				if got := mustRead(t, target, file); got != "third" {
					t.Errorf("%s is a %s and holds %q", file, info.Mode(), got)
				}
			}
			if left, err := filepath.Glob(target + "/..*"); err != nil || len(left) > 3 { // one mount cannot be removed
				t.Errorf("the volume still holds %q, %v", left, err)
			}
			must(t, tmpfs.Remove(target))
			requireNothing(t, target)
		})
	}
}

// What a container fills keeps its files from being replaced, and nothing else.
func TestReplaceInAVolumeThatAContainerFills(t *testing.T) {
	tests := map[string]struct {
		fill func(t *testing.T, view string)
		want string
	}{
		"with bytes": {func(t *testing.T, view string) {
			file, err := os.Create(filepath.Join(view, "mine"))
			must(t, err)
			defer file.Close()
			for err == nil {
				_, err = file.WriteString(strings.Repeat("x", 4096))
			}
		}, "raise the attribute size"},
		"with inodes": {func(t *testing.T, view string) {
			var err error
			for i := 0; err == nil; i++ {
				err = os.WriteFile(filepath.Join(view, fmt.Sprintf("mine-%d", i)), nil, 0o600)
			}
		}, "delete the files that a container made"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			mounter, target := newMounter(t), newTarget(t)
			_, err := mounter.Create(target, mebibyte, oneFile("a", "first"))
			must(t, err)
			view := writableView(t, target)
			test.fill(t, view)
			for range 2 {
				if _, err := mounter.Replace(target, oneFile("a", "second")); !errors.Is(err, tmpfs.ErrFull) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v", err)
				}
				if got := mustRead(t, target, "a"); got != "first" {
					t.Errorf("the file holds %q", got)
				}
			}
			mine, err := filepath.Glob(view + "/mine*")
			must(t, err)
			for _, file := range mine {
				must(t, os.Remove(file))
			}
			_, err = mounter.Replace(target, oneFile("a", "second"))
			must(t, err)
			if got := mustRead(t, target, "a"); got != "second" {
				t.Errorf("the file holds %q", got)
			}
		})
	}
}

// What a container makes beside the files is its own.
func TestReplaceLeavesOtherFilesAlone(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	_, err := mounter.Create(target, mebibyte, oneFile("gone", "first"))
	must(t, err)
	view := writableView(t, target)
	must(t, os.WriteFile(filepath.Join(view, "mine"), []byte("mine"), 0o600))
	must(t, os.Symlink("mine", filepath.Join(view, "alias")))
	_, err = mounter.Replace(target, oneFile("a", "second"))
	must(t, err)
	if got := mustRead(t, target, "mine") + mustRead(t, target, "alias"); got != "minemine" {
		t.Errorf("they hold %q", got)
	}
	if _, err := os.Lstat(filepath.Join(target, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link to a file that is gone: %v", err)
	}
}

// After an error, the volume has the names that it had before.
func TestReplaceThatFailsLeavesNoNewNames(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	_, err := mounter.Create(target, mebibyte, oneFile("a", "first"))
	must(t, err)
	// The kernel moves nothing over a mount point of this mount namespace.
	view := writableView(t, target)
	must(t, os.Remove(filepath.Join(view, "..data")))
	must(t, os.Mkdir(filepath.Join(view, "..data"), 0o755))
	must(t, unix.Mount("tmpfs", filepath.Join(view, "..data"), "tmpfs", 0, ""))
	before, err := filepath.Glob(target + "/[^.]*")
	must(t, err)
	set := tmpfs.Set{Files: []tmpfs.File{{Path: "new-1", Perms: 0o644}, {Path: "new-2/b", Perms: 0o644}}}
	if _, err := mounter.Replace(target, set); err == nil {
		t.Error("files were swapped over a mount point")
	}
	must(t, unix.Unmount(filepath.Join(view, "..data"), 0))
	after, err := filepath.Glob(target + "/[^.]*")
	must(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the volume lists %v, and %v before", after, before)
	}
}

// The umask of the driver does not keep containers out of directories.
func TestDirectoriesHaveTheirModeWhateverTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	mounter, target := newMounter(t), newTarget(t)
	_, err := mounter.Create(target, mebibyte, oneFile("conf/deep/a", "x"))
	must(t, err)
	for _, directory := range []string{".", "..data/", "conf", "conf/deep"} {
		info, err := os.Stat(filepath.Join(target, directory))
		must(t, err)
		if info.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %s", directory, info.Mode())
		}
	}
}

// A volume cannot take more kernel memory than its number of inodes says.
func TestVolumeHoldsNoMoreInodesThanItNeeds(t *testing.T) {
	mounter, target := newMounter(t), newTarget(t)
	set := oneFile("one/two/a", "x")
	_, err := mounter.Create(target, 16*mebibyte, set)
	must(t, err)
	usage, err := tmpfs.ReadUsage(target)
	must(t, err)
	if usage.InodesTotal != int64(set.Inodes()) {
		t.Errorf("it may hold %d inodes, and two generations of the set need %d", usage.InodesTotal, set.Inodes())
	}
}
