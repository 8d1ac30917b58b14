package tmpfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// A container may hold a file of an old generation for as long as it runs, and the
// kernel frees no memory of that: it is a third generation beside the two of each
// rotation.
func TestReplaceBesideAFileThatAContainerHolds(t *testing.T) {
	ways := map[string]func(t *testing.T, file string) (letGo func()){"open": holdOpen, "by subPath": holdBySubPath}
	sizes := map[string]struct {
		size int64
		fits bool
	}{
		"two generations":   {mebibyte, false},
		"three generations": {3 * mebibyte / 2, true},
	}
	for way, hold := range ways {
		for room, test := range sizes {
			t.Run(way+", room for "+room, func(t *testing.T) {
				mounter, target := newMounter(t), newTarget(t)
				if _, err := mounter.Create(target, test.size, largeFile("1")); err != nil {
					t.Fatal(err)
				}
				letGo := hold(t, filepath.Join(target, "a"))
				defer letGo()
				if _, err := mounter.Replace(target, largeFile("2")); err != nil {
					t.Fatal(err)
				}
				for range 2 { // a failure leaves nothing in the way of the next
					_, err := mounter.Replace(target, largeFile("3"))
					if test.fits != (err == nil) {
						t.Fatalf("got %v", err)
					}
					if !test.fits {
						requireFull(t, err)
					}
				}
				letGo()
				if _, err := mounter.Replace(target, largeFile("4")); err != nil {
					t.Errorf("once the container has let go: %v", err)
				}
			})
		}
	}
}

// requireFull wants to be told what to do, and no path that only the driver sees.
func requireFull(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if !errors.Is(err, tmpfs.ErrFull) || strings.Contains(text, "/proc/") || strings.Contains(text, "..") {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"the new ones take 409600 bytes", "229376 of 1048576 are free", "raise the attribute size", "keeps an old file open, or mounts it by subPath"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

// largeFile is two fifths of a mebibyte, of one letter.
func largeFile(letter string) tmpfs.Set { return oneFile("a", strings.Repeat(letter, 400<<10)) }

func holdOpen(t *testing.T, file string) (letGo func()) {
	t.Helper()
	held, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = held.Close() }
}

// holdBySubPath mounts what the link shows now, as the kubelet does for a container.
func holdBySubPath(t *testing.T, file string) (letGo func()) {
	t.Helper()
	mountpoint := filepath.Join(t.TempDir(), "sub")
	if err := os.WriteFile(mountpoint, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	shown, err := filepath.EvalSymlinks(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(shown, mountpoint, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	return func() { _ = unix.Unmount(mountpoint, unix.MNT_DETACH) }
}
