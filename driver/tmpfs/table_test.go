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

func TestMountedFindsTheVolumesOfThisDriver(t *testing.T) {
	mounter := newMounter(t)
	other, err := NewMounter("csi.example.org")
	must(t, err)
	directory := t.TempDir()
	mine, theirs, sub := filepath.Join(directory, "b"), filepath.Join(directory, "a"), filepath.Join(directory, "sub")
	for target, by := range map[string]*Mounter{mine: mounter, theirs: other, directory + "-not": mounter} {
		must(t, by.Create(target, mebibyte, oneFile("conf/a", "")))
		t.Cleanup(func() { must(t, Remove(target)) })
	}
	must(t, os.Mkdir(sub, 0o700))
	must(t, unix.Mount(mine+"/conf", sub, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(sub, unix.MNT_DETACH)) })
	got, err := mounter.Mounted(directory)
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
