package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	outside := t.TempDir()
	plugin := filepath.Join(root, "pods", "uid", "volumes", "kubernetes.io~csi")
	if err := os.MkdirAll(filepath.Join(plugin, "secrets"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(plugin, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(plugin, "linked"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secrets", filepath.Join(plugin, "linked", "mount")); err != nil {
		t.Fatal(err)
	}
	linkedRoot := filepath.Join(t.TempDir(), "kubelet")
	if err := os.Symlink(root, linkedRoot); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		root, target string
		ok           bool
	}{
		"as the kubelet sends it":   {root, plugin + "/secrets/mount", true},
		"parent already gone":       {root, plugin + "/gone/mount", true},
		"root behind a link":        {linkedRoot, linkedRoot + "/pods/uid/volumes/kubernetes.io~csi/secrets/mount", true},
		"elsewhere":                 {root, outside + "/mount", false},
		"the directory of all pods": {root, root + "/pods", false},
		"beside it":                 {root, root + "/pods-not/x/mount", false},
		"out by dots":               {root, root + "/pods/../../etc/mount", false},
		"out by a link":             {root, plugin + "/link/mount", false},
		"itself a link":             {root, plugin + "/linked/mount", false},
		"relative":                  {root, "pods/x/mount", false},
		"with a zero byte":          {root, plugin + "/secrets/mount\x00", false},
		"too long":                  {root, plugin + "/secrets/" + strings.Repeat("x", 300), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := New(Config{KubeletRoot: test.root}).CheckTarget(test.target)
			if (err == nil) != test.ok || !test.ok && !errors.As(err, new(*TargetError)) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestVolumeName(t *testing.T) {
	t.Parallel()
	if got := NameOf("/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/vault-secrets/mount"); got != "vault-secrets" {
		t.Errorf("got %q", got)
	}
}

// What takes the place of a directory after the check is not used. Needs root.
func TestTargetIsReachedByItsDirectory(t *testing.T) {
	t.Parallel()
	root, outside := t.TempDir(), t.TempDir()
	parent := filepath.Join(root, "pods", "uid", "volumes", "kubernetes.io~csi", "secrets")
	must(t, os.MkdirAll(parent, 0o750))
	m := New(Config{KubeletRoot: root})
	must(t, m.CheckTarget(filepath.Join(parent, "mount")))
	path, leave, err := m.openTarget(filepath.Join(parent, "mount"))
	must(t, err)
	defer leave()
	must(t, os.Rename(parent, parent+"-moved"))
	must(t, os.Symlink(outside, parent))
	if _, _, err := m.openTarget(filepath.Join(parent, "mount")); err == nil {
		t.Error("a link is followed")
	}
	mounter, err := tmpfs.NewMounter("csi.vaultmount.dev")
	must(t, err)
	must(t, mounter.Create(path, volumeSize, tmpfs.Payload{{Path: "a"}}))
	if exists, err := tmpfs.Exists(parent + "-moved/mount"); err != nil || !exists {
		t.Errorf("the volume is not where its directory is: %v", err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("the link leads to %v, %v", entries, err)
	}
	must(t, tmpfs.Remove(path))
	if entries, err := os.ReadDir(parent + "-moved"); err != nil || len(entries) > 0 {
		t.Errorf("there is still %v, %v", entries, err)
	}
	path, leave, err = m.openTarget(filepath.Join(root, "pods", "gone", "mount"))
	must(t, err)
	leave()
	if path != filepath.Join(root, "pods", "gone", "mount") {
		t.Errorf("without a directory, the path is %s", path)
	}
}
