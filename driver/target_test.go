package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	outside := t.TempDir()
	volumes := filepath.Join(root, "pods", "uid", "volumes", "kubernetes.io~csi")
	if err := os.MkdirAll(filepath.Join(volumes, "secrets"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(volumes, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(volumes, "linked"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secrets", filepath.Join(volumes, "linked", "mount")); err != nil {
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
		"as the kubelet sends it":   {root, volumes + "/secrets/mount", true},
		"parent already gone":       {root, volumes + "/gone/mount", true},
		"root behind a link":        {linkedRoot, linkedRoot + "/pods/uid/volumes/kubernetes.io~csi/secrets/mount", true},
		"elsewhere":                 {root, outside + "/mount", false},
		"the directory of all pods": {root, root + "/pods", false},
		"beside it":                 {root, root + "/pods-not/x/mount", false},
		"out by dots":               {root, root + "/pods/../../etc/mount", false},
		"out by a link":             {root, volumes + "/link/mount", false},
		"itself a link":             {root, volumes + "/linked/mount", false},
		"relative":                  {root, "pods/x/mount", false},
		"with a zero byte":          {root, volumes + "/secrets/mount\x00", false},
		"too long":                  {root, volumes + "/secrets/" + strings.Repeat("x", 300), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &Driver{config: Config{KubeletRoot: test.root}}
			err := d.checkTarget(test.target)
			if (err == nil) != test.ok || !test.ok && code(err) != codes.InvalidArgument {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestVolumeName(t *testing.T) {
	t.Parallel()
	if got := volumeName("/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/vault-secrets/mount"); got != "vault-secrets" {
		t.Errorf("got %q", got)
	}
}
