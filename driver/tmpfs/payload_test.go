package tmpfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/cost"
)

func TestReplaceSwapsThePayload(t *testing.T) {
	mounter, target := create(t, mebibyte, Payload{
		{Path: "a", Content: []byte("old"), Perms: 0o644}, {Path: "gone/x", Content: []byte("old"), Perms: 0o644},
	})
	open, err := os.Open(filepath.Join(target, "a"))
	must(t, err)
	defer open.Close()
	must(t, mounter.Replace(target, Payload{
		{Path: "a", Content: []byte("new"), Perms: 0o600}, {Path: "come/y", Content: []byte("new"), Perms: 0o644},
	}))
	if got := readFile(t, target, "a") + readFile(t, target, "come/y"); got != "newnew" {
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

func TestDigest(t *testing.T) {
	payload := func(change func(*File)) Payload {
		file := File{Path: "a", Content: []byte("content"), Perms: 0o644, UID: 1, GID: 2}
		change(&file)
		return Payload{file, {Path: "b", Perms: 0o600, UID: 1, GID: 2}}
	}
	same := payload(func(*File) {})
	for name, test := range map[string]struct {
		payload Payload
		want    bool
	}{
		"the same":         {same, true},
		"in another order": {Payload{same[1], same[0]}, true},
		"another content":  {payload(func(f *File) { f.Content = []byte("Content") }), false},
		"another mode":     {payload(func(f *File) { f.Perms = 0o640 }), false},
		"another owner":    {payload(func(f *File) { f.UID = 3 }), false},
		"another group":    {payload(func(f *File) { f.GID = 3 }), false},
		"another path":     {payload(func(f *File) { f.Path = "c" }), false},
		"one file less":    {same[:1], false},
	} {
		if got := same.Digest().Equal(test.payload.Digest()); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
	if (Digest{}).Equal(Payload{}.Digest()) {
		t.Error("an unknown payload equals an empty one")
	}
}

// A template may write more files when it is rendered again.
func TestReplaceTakesMoreFilesAfterGrow(t *testing.T) {
	mounter, target := create(t, mebibyte, oneFile("a", "x"))
	more := Payload{}
	for i := range 60 {
		more = append(more, oneFile(fmt.Sprintf("part-%d", i), "x")...)
	}
	if err := mounter.Replace(target, more); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "inodes are free") {
		t.Fatalf("with the inodes of one file: %v", err)
	}
	if got := readFile(t, target, "a"); got != "x" {
		t.Errorf("after the error, the file holds %q", got)
	}
	must(t, mounter.Grow(target, more.Inodes()))
	for _, payload := range []Payload{more, oneFile("a", "x"), more} {
		must(t, mounter.Replace(target, payload))
	}
}

// Each directory takes an inode, twice during a replacement, in a volume of any size.
func TestReplaceOfFilesInManyDirectories(t *testing.T) {
	for _, depth := range []int{100, 511} {
		path := strings.Repeat("d/", depth) + "f"
		mounter, target := create(t, 4*int64(os.Getpagesize()), oneFile(path, "first"))
		for _, content := range []string{"second", "third"} {
			must(t, mounter.Replace(target, oneFile(path, content)))
			if got := readFile(t, target, path); got != content {
				t.Errorf("%d directories: the file holds %q", depth, got)
			}
		}
	}
}

// After an unmount, nothing is written to the directory beneath, on disk or in another tmpfs.
func TestReplaceWritesNothingBeneath(t *testing.T) {
	mounter, target := create(t, mebibyte, oneFile("a", "first"))
	must(t, unix.Unmount(target, 0))
	for _, beneath := range []string{"disk", "tmpfs"} {
		if beneath == "tmpfs" {
			must(t, unix.Mount("tmpfs", filepath.Dir(target), "tmpfs", 0, ""))
			defer unix.Unmount(filepath.Dir(target), unix.MNT_DETACH)
			must(t, os.Mkdir(target, 0o700))
		}
		if err := mounter.Replace(target, oneFile("a", "second")); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s beneath: %v", beneath, err)
		}
		if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
			t.Errorf("%s beneath: it holds %v, %v", beneath, entries, err)
		}
	}
}

// A reader that resolves ..data once sees the files of one payload.
func TestReplaceIsAtomicForReaders(t *testing.T) {
	payload := func(i int) Payload { return append(oneFile("a", fmt.Sprint(i)), oneFile("b", fmt.Sprint(i))...) }
	mounter, target := create(t, mebibyte, payload(0))
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
				t.Errorf("open the data directory: %v", err)
				return
			}
			a, errA := directory.ReadFile("a")
			b, errB := directory.ReadFile("b")
			directory.Close()
			// The data directory may be removed between the two reads, never mixed.
			if errA == nil && errB == nil && string(a) != string(b) {
				t.Errorf("read payloads %s and %s together", a, b)
				return
			}
			reads++
		}
	})
	for i := range 300 {
		if err := mounter.Replace(target, payload(i+1)); err != nil {
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

// A container may hold an old file while it runs. The kernel frees no memory of that file, so
// it is there beside the two payloads of a rotation.
func TestReplaceBesideAFileThatAContainerHolds(t *testing.T) {
	large := func(letter string) Payload { return oneFile("a", strings.Repeat(letter, 400<<10)) }
	for way, hold := range map[string]func(t *testing.T, file string) (release func()){"open": holdOpen, "by subPath": holdBySubPath} {
		for size, fits := range map[int64]bool{mebibyte: false, 3 * mebibyte / 2: true} {
			t.Run(fmt.Sprintf("%s, %d bytes", way, size), func(t *testing.T) {
				mounter, target := create(t, size, large("1"))
				release := hold(t, filepath.Join(target, "a"))
				defer release()
				must(t, mounter.Replace(target, large("2")))
				for range 2 { // a failure leaves nothing in the way of the next
					err := mounter.Replace(target, large("3"))
					const want = "the new files need 400 KiB, and 224 KiB of 1.0 MiB are free; set size: 2Mi. A container that holds an old file open, or mounts it by subPath"
					if fits {
						must(t, err)
					} else if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "/proc/") {
						t.Fatalf("got %v", err)
					}
				}
				release()
				must(t, mounter.Replace(target, large("4")))
			})
		}
	}
}

func holdOpen(t *testing.T, file string) (release func()) {
	held, err := os.Open(file)
	must(t, err)
	return func() { _ = held.Close() }
}

// holdBySubPath mounts the current target of the link, as the kubelet does for a container.
func holdBySubPath(t *testing.T, file string) (release func()) {
	mountpoint := filepath.Join(t.TempDir(), "sub")
	must(t, os.WriteFile(mountpoint, nil, 0o600))
	current, err := filepath.EvalSymlinks(file)
	must(t, err)
	must(t, unix.Mount(current, mountpoint, "", unix.MS_BIND, ""))
	return func() { _ = unix.Unmount(mountpoint, unix.MNT_DETACH) }
}

// writableView is the volume as a container sees it whose runtime removes the read-only flag
// of its mount, as runc does since 1.2.
func writableView(t *testing.T, target string) string {
	t.Helper()
	view := t.TempDir()
	must(t, unix.Mount(target, view, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(view, unix.MNT_DETACH)) })
	must(t, unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	return view
}

// A replacement neither blocks on what a container put into the volume nor reads it, and the
// new files are there after it.
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
		"a file of 1 TiB":                        func(t *testing.T, view string) { must(t, os.Truncate(filepath.Join(view, a), 1<<40)) },
		"a FIFO as a file":                       inPlaceOf(a, fifo),
		"a link as a file":                       inPlaceOf(a, link),
		"a directory as a file":                  inPlaceOf(a, directory),
		"a FIFO as a directory":                  inPlaceOf("..data/conf", fifo),
		"a link as a directory":                  inPlaceOf("..data/conf", link),
		"a FIFO as a link":                       inPlaceOf("a", fifo),
		"another link":                           inPlaceOf("a", link),
		"a directory as a link":                  inPlaceOf("conf", directory),
		"a FIFO as ..data":                       inPlaceOf("..data", fifo),
		"a link out of the volume as ..data":     inPlaceOf("..data", link),
		"a link to itself as ..data":             inPlaceOf("..data", within),
		"a directory as ..data":                  inPlaceOf("..data", directory),
		"a FIFO as an old data directory":        inPlaceOf("..old", fifo),
		"a link as an old data directory":        inPlaceOf("..old", link),
		"as many nested directories as it holds": nestDirectories,
		"a mount over the files": func(t *testing.T, view string) {
			dataDir, err := filepath.EvalSymlinks(filepath.Join(view, "..data"))
			must(t, err)
			must(t, unix.Mount("tmpfs", dataDir, "tmpfs", 0, ""))
			t.Cleanup(func() { _ = unix.Unmount(dataDir, unix.MNT_DETACH) })
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			payload := func(content string) Payload { return append(oneFile("a", content), oneFile("conf/b", content)...) }
			mounter, target := create(t, mebibyte, payload("first"))
			must(t, mounter.Grow(target, 400))
			view := writableView(t, target)
			// Each entry that a container made is removed for less than 1 KiB of garbage.
			var volume unix.Statfs_t
			must(t, unix.Statfs(view, &volume))
			most := mebibyte + volume.Files<<10
			change(t, view)
			for _, content := range []string{"second", "third"} {
				var err error
				used := cost.Measure(func() { err = mounter.Replace(target, payload(content)) })
				if err != nil || used.Allocated > most {
					t.Fatalf("replace with the %s content: %v; %d bytes are allocated of %d", content, err, used.Allocated, most)
				}
			}
			for _, file := range []string{"a", "conf/b", a, nested} {
				if got := readFile(t, target, file); got != "third" {
					t.Errorf("%s holds %q", file, got)
				}
			}
			if left, err := filepath.Glob(target + "/..*"); err != nil || len(left) > 3 { // one mount cannot be removed
				t.Errorf("the volume still holds %q, %v", left, err)
			}
			must(t, Remove(target))
			requireNothing(t, target)
		})
	}
}

func nestDirectories(t *testing.T, view string) {
	must(t, os.Chdir(view))
	defer func() { must(t, os.Chdir("/")) }()
	for name := "..deep"; ; name = "d" {
		if err := os.Mkdir(name, 0o777); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		must(t, os.Chdir(name))
	}
}

// A container that fills the volume keeps its files from being replaced, and nothing else.
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
		}, "set size: 2Mi"},
		"with inodes": {func(_ *testing.T, view string) {
			var err error
			for i := 0; err == nil; i++ {
				err = os.WriteFile(filepath.Join(view, fmt.Sprintf("mine-%d", i)), nil, 0o600)
			}
		}, "delete the files that a container created"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			mounter, target := create(t, mebibyte, oneFile("a", "first"))
			view := writableView(t, target)
			test.fill(t, view)
			for range 2 {
				if err := mounter.Replace(target, oneFile("a", "second")); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v", err)
				}
				if got := readFile(t, target, "a"); got != "first" {
					t.Errorf("the file holds %q", got)
				}
			}
			mine, err := filepath.Glob(view + "/mine*")
			must(t, err)
			for _, file := range mine {
				must(t, os.Remove(file))
			}
			must(t, mounter.Replace(target, oneFile("a", "second")))
			if got := readFile(t, target, "a"); got != "second" {
				t.Errorf("the file holds %q", got)
			}
		})
	}
}

// A file that a container makes beside the payload is its own.
func TestReplaceKeepsOtherFiles(t *testing.T) {
	mounter, target := create(t, mebibyte, oneFile("gone", "first"))
	view := writableView(t, target)
	must(t, os.WriteFile(filepath.Join(view, "mine"), []byte("mine"), 0o600))
	must(t, os.Symlink("mine", filepath.Join(view, "alias")))
	must(t, mounter.Replace(target, oneFile("a", "second")))
	if got := readFile(t, target, "mine") + readFile(t, target, "alias"); got != "minemine" {
		t.Errorf("they hold %q", got)
	}
	if _, err := os.Lstat(filepath.Join(target, "gone")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link to a file that is gone: %v", err)
	}
}

// After an error, the volume has the names that it had before.
func TestReplaceThatFailsLeavesNoNewNames(t *testing.T) {
	mounter, target := create(t, mebibyte, oneFile("a", "first"))
	// The kernel moves nothing over a mount point of this mount namespace.
	dataLink := filepath.Join(writableView(t, target), "..data")
	must(t, os.Remove(dataLink))
	must(t, os.Mkdir(dataLink, 0o755))
	must(t, unix.Mount("tmpfs", dataLink, "tmpfs", 0, ""))
	before, err := filepath.Glob(target + "/[^.]*")
	must(t, err)
	if err := mounter.Replace(target, Payload{{Path: "new-1", Perms: 0o644}, {Path: "new-2/b", Perms: 0o644}}); err == nil {
		t.Error("files were swapped over a mount point")
	}
	must(t, unix.Unmount(dataLink, 0))
	after, err := filepath.Glob(target + "/[^.]*")
	must(t, err)
	if !slices.Equal(before, after) {
		t.Errorf("the volume lists %v, and %v before", after, before)
	}
}
