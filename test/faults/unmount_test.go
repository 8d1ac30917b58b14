package faults

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// Somebody unmounts the driver's state while it runs: what it learns from then on is
// written to memory and not to the disk beneath, and the metric shows it. The next process
// takes the volumes over as they are, at the cost of a login for each.
func TestStateIsUnmounted(t *testing.T) {
	for name, flags := range map[string]int{"lazily": unix.MNT_DETACH, "by force": unix.MNT_FORCE | unix.MNT_DETACH} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally.AtEnd(t, "state unmounted under the driver", 1)
			vault := rig.StartVault(t)
			n := startNode(t, vault, vault.Server.Address)
			vault.SetPassword(t, password(1))
			before, after := n.request(t, "before", generations()), n.request(t, "after", generations())
			n.MustPublish(t, before)
			onDisk := beneath(t, n.StateDirectory())
			if !n.shows(t, "vaultmount_checkpoint_mounted 1") {
				t.Error("the metric says that the state is not mounted")
			}
			if err := unix.Unmount(n.StateDirectory(), 0); !errors.Is(err, unix.EBUSY) {
				t.Errorf("a plain unmount: %v", err)
			}
			require.NoError(t, unix.Unmount(n.StateDirectory(), flags))
			n.MustPublish(t, after)
			if !n.shows(t, "vaultmount_checkpoint_mounted 0") || len(onDisk(t)) > 0 {
				t.Errorf("the metric says that the state is mounted, or on the disk are %q", onDisk(t))
			}
			gone := n.request(t, "gone", generations())
			n.MustPublish(t, gone)
			n.MustUnpublish(t, gone)
			rig.Eventually(t, "a token is revoked all the same", func() bool { return vault.PodTokens(t) == 2 })

			n.Process.Kill(t)
			n.Again(t)
			n.MustPublish(t, before)
			n.MustPublish(t, after)
			vault.SetPassword(t, password(2))
			for _, each := range []*csi.NodePublishVolumeRequest{before, after} {
				rig.Eventually(t, "the volume has a token again, and is refreshed", func() bool {
					require.NoError(t, n.refresh(t.Context(), each))
					seen, err := readGeneration(each.GetTargetPath())
					return err == nil && seen == 2
				})
			}
			n.MustUnpublish(t, before)
			n.MustUnpublish(t, after)
			rig.Eventually(t, "only the tokens of the lost state are left to end", func() bool { return vault.PodTokens(t) == 2 })
			n.requireClean(t)
		})
	}
}

// Somebody unmounts a volume of a pod that runs: what would be refreshed is not
// written to the disk beneath, people are told, and the kubelet's next call mounts the
// volume again. What the containers' files are made of stays valid until the pod is gone.
func TestVolumeIsUnmounted(t *testing.T) {
	t.Parallel()
	tally.AtEnd(t, "volume unmounted under the driver", 1)
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	attributes := generations()
	attributes["static-secret-render-interval"] = "10s"
	request := n.request(t, "app", attributes)
	n.MustPublish(t, request)
	tokens := vault.Accessors(t)
	require.NoError(t, unix.Unmount(request.GetTargetPath(), 0))
	vault.SetPassword(t, password(2))
	rig.Eventually(t, "it is told", func() bool {
		return strings.Contains(n.Process.Log.String(), "the volume was unmounted")
	})
	if entries, err := os.ReadDir(request.GetTargetPath()); err != nil || len(entries) > 0 {
		t.Errorf("on the disk is %v, %v", entries, err)
	}
	if !n.shows(t, "vaultmount_volumes_used_bytes 0") || !n.shows(t, "vaultmount_volumes_stale 1") {
		t.Error("the metrics count what is on the disk, or no failure")
	}
	n.MustPublish(t, request)
	if seen, err := readGeneration(request.GetTargetPath()); err != nil || seen != 2 {
		t.Errorf("the files hold generation %d, %v", seen, err)
	}
	for _, token := range tokens { // containers that run use what it has read
		if !vault.IsGood(t, token) {
			t.Error("a token of before is revoked")
		}
	}
	n.MustUnpublish(t, request)
	rig.Eventually(t, "no token is left", func() bool { return vault.PodTokens(t) == 0 })
	n.requireClean(t)
}

// shows reports whether the driver's metrics have a line.
func (n *node) shows(t *testing.T, line string) bool {
	t.Helper()
	return strings.Contains(n.Process.Metrics(t), "\n"+line+"\n")
}

// beneath shows what is on the disk at a path, whatever is mounted there.
func beneath(t *testing.T, target string) (names func(*testing.T) []string) {
	t.Helper()
	view := t.TempDir()
	require.NoError(t, unix.Mount(filepath.Dir(target), view, "", unix.MS_BIND, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(view, unix.MNT_DETACH)) })
	return func(t *testing.T) []string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(view, filepath.Base(target), "*"))
		require.NoError(t, err)
		return found
	}
}
