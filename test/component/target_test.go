package component

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

// What is in the way of a volume is somebody's: it stays as it is, the pod
// says what to remove, and Vault is left with no token. The kubelet then calls
// again.
func TestSomethingInTheWayOfTheTargetPath(t *testing.T) {
	tests := map[string]struct {
		put       func(t *testing.T, n *node, target string)
		code      codes.Code
		wantError string
	}{
		"a directory with a file": {func(t *testing.T, _ *node, target string) {
			require.NoError(t, os.Mkdir(target, 0o750))
			mustWrite(t, filepath.Join(target, "mine"))
		}, codes.FailedPrecondition, "the target path is not an empty directory"},
		"a file": {func(t *testing.T, _ *node, target string) {
			mustWrite(t, target)
		}, codes.FailedPrecondition, "the target path is not an empty directory"},
		"a link to a directory": {func(t *testing.T, _ *node, target string) {
			mustLink(t, t.TempDir(), target)
		}, codes.InvalidArgument, "is or is below a symbolic link"},
		"a link to nothing": {func(t *testing.T, _ *node, target string) {
			mustLink(t, filepath.Join(t.TempDir(), "nothing"), target)
		}, codes.InvalidArgument, "is or is below a symbolic link"},
		"a link to the volume of another pod": {func(t *testing.T, n *node, target string) {
			other := n.request(t, "other", map[string]string{"template/db": "of the other pod"})
			n.mustPublish(t, other)
			mustLink(t, other.GetTargetPath(), target)
		}, codes.InvalidArgument, "is or is below a symbolic link"},
		"a link for the directory above": {func(t *testing.T, _ *node, target string) {
			require.NoError(t, os.RemoveAll(filepath.Dir(target)))
			mustLink(t, t.TempDir(), filepath.Dir(target))
		}, codes.InvalidArgument, "is or is below a symbolic link"},
	}
	fixture := rig.StartVault(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, fixture.Server.Address, fixture)
			request := n.request(t, "obstructed", map[string]string{"template/db": connectionTemplate})
			target := request.GetTargetPath()
			test.put(t, n, target)
			before, others := listing(t, filepath.Dir(target)), fixture.PodTokens(t)
			for range 2 {
				_, err := n.calls.NodePublishVolume(t.Context(), request)
				if status.Code(err) != test.code || !strings.Contains(err.Error(), test.wantError) {
					t.Errorf("publish: %v, want %s with %q", err, test.code, test.wantError)
				}
			}
			if _, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request)); err == nil {
				t.Error("what stood there was unpublished")
			}
			if after := listing(t, filepath.Dir(target)); after != before {
				t.Errorf("there is now %q, and was %q", after, before)
			}
			rig.Eventually(t, "no token is left", func() bool { return fixture.PodTokens(t) == others })
			if strings.Contains(name, "above") {
				return // the kubelet does not come back from that either
			}
			require.NoError(t, os.RemoveAll(target))
			if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
				t.Errorf("when the way is free: %v", err)
			}
			if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
				t.Errorf("the file holds %q", got)
			}
		})
	}
}

// The driver is root, and the path only a string from a socket.
func TestTargetPathOutsideTheKubeletsDirectory(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	outside := t.TempDir()
	for _, target := range []string{
		outside + "/mount", n.kubelet.Root + "/pods/../../" + filepath.Base(outside) + "/mount", n.kubelet.Root + "/plugins/mount", n.kubelet.Root + "/pods", "/", "mount",
	} {
		request := n.request(t, "outside", map[string]string{"template/db": connectionTemplate})
		request.TargetPath = target
		_, err := n.calls.NodePublishVolume(t.Context(), request)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "--kubelet-root") {
			t.Errorf("publish on %s: %v", target, err)
		}
		_, err = n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "--kubelet-root") {
			t.Errorf("unpublish of %s: %v", target, err)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
	if got := fixture.PodTokens(t); got != 0 {
		t.Errorf("Vault holds %d tokens of pods", got)
	}
}

func mustWrite(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
}

func mustLink(t *testing.T, to, path string) {
	t.Helper()
	require.NoError(t, os.Symlink(to, path))
}

// listing is what is at a path and below it, links not followed.
func listing(t *testing.T, path string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		content := ""
		switch entry.Type() {
		case 0:
			content = mustRead(t, path)
		case fs.ModeSymlink:
			content, err = os.Readlink(path)
		}
		fmt.Fprintf(&text, "%s %s %q\n", entry.Type(), path, content)
		return err
	})
	require.NoError(t, err)
	return text.String()
}
