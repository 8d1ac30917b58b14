package tmpfs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// Needs root.
func TestMountedFindsTheVolumesOfThisDriver(t *testing.T) {
	mounter, err := NewMounter("csi.example.com")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewMounter("csi.example.org")
	if err != nil {
		t.Fatal(err)
	}
	below := t.TempDir()
	mine, theirs, sub := filepath.Join(below, "b"), filepath.Join(below, "a"), filepath.Join(below, "sub")
	for target, by := range map[string]*Mounter{mine: mounter, theirs: other, below + "-not": mounter} {
		if _, err := by.Create(target, 1<<20, Set{Files: []File{{Path: "conf/a"}}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = Remove(target) })
	}
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mine+"/conf", sub, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(sub, unix.MNT_DETACH) })
	got, err := mounter.Mounted(below)
	if err != nil || !slices.Equal(got, []string{mine}) {
		t.Errorf("got %q, %v", got, err)
	}
}

// A node may have as many mounts as the kernel allows.
func TestMountTableIsReadInLinearTime(t *testing.T) {
	const lines = 100_000
	var table bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&table, "%d 29 0:%d / /var/lib/kubelet/pods/%036d/volumes/kubernetes.io~projected/kube-api-access-abcde/mount rw,relatime shared:%d - tmpfs tmpfs rw,size=1048576k,inode64\n", i, i, i, i)
	}
	const mine = "/var/lib/kubelet/pods/0/volumes/kubernetes.io~csi/a/mount"
	fmt.Fprintf(&table, "%d 29 0:9 / %s ro,nosuid,nodev,noexec - tmpfs csi.example.com rw,size=1024k\n", lines, mine)
	path := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(path, table.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	var err error
	used := cost.Measure(func() { got, err = (&Mounter{source: "csi.example.com"}).mountedIn(path, "/var/lib/kubelet/pods") })
	if err != nil || !slices.Equal(got, []string{mine}) {
		t.Fatalf("got %q, %v", got, err)
	}
	t.Logf("%d lines of %d bytes take %s of CPU time and %d bytes", lines, table.Len(), used.CPU, used.Allocated)
	if perByte := used.Allocated / uint64(table.Len()); perByte > 20 {
		t.Errorf("it allocates %d bytes for each of the table", perByte)
	}
	cost.Assert(t, table.Len(), func() { _, _ = (&Mounter{}).mountedIn(path, "/var/lib/kubelet/pods") })
}

func TestUnreadableMountTable(t *testing.T) {
	if _, err := (&Mounter{}).mountedIn(filepath.Join(t.TempDir(), "none"), "/"); err == nil {
		t.Error("a table that is not there is read")
	}
}
