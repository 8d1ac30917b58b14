package faults

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// Somebody unmounts the driver's state while it runs: what it learns from then on
// is written to memory and not to the disk beneath, the state is where it was
// within seconds, and the next process goes on without a login.
func TestStateIsUnmounted(t *testing.T) {
	for name, flags := range map[string]int{"at once": 0, "lazily": unix.MNT_DETACH} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tally.AtEnd(t, "state unmounted under the driver", 1)
			vault := rig.StartVault(t)
			n := startNode(t, vault, vault.Server.Address)
			vault.SetPassword(t, password(1))
			before, after := n.request(t, "before", generations()), n.request(t, "after", generations())
			n.mustPublish(t, before)
			onDisk := beneath(t, n.StateDirectory())
			must(t, unix.Unmount(n.StateDirectory(), flags))
			n.mustPublish(t, after)
			rig.Eventually(t, "the state is mounted again", func() bool { return len(n.Records(t)) > 0 })
			if mounted, err := tmpfs.Exists(n.StateDirectory()); err != nil || !mounted || len(onDisk(t)) > 0 {
				t.Errorf("the records are in memory: %t, %v; on the disk are %q", mounted, err, onDisk(t))
			}
			if got := strings.Count(n.process.Log.String(), `"State was unmounted while the driver runs; it is mounted again`); got != 1 {
				t.Errorf("it is logged %d times", got)
			}
			n.process.Kill(t)
			n.again(t)
			n.mustPublish(t, before)
			n.mustPublish(t, after)
			if got := vault.PodTokens(t); got != 2 {
				t.Errorf("Vault holds %d tokens of pods, want one for each", got)
			}
			n.mustUnpublish(t, before)
			n.mustUnpublish(t, after)
			rig.Eventually(t, "no token is left", func() bool { return vault.PodTokens(t) == 0 })
			n.requireClean(t)
		})
	}
}

// Somebody has put a file where the state was: the metric shows it until the file
// is gone, and the volumes go on.
func TestStateCannotBeMountedAgain(t *testing.T) {
	t.Parallel()
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	onDisk := beneath(t, n.StateDirectory())
	request := n.request(t, "app", generations())
	n.mustPublish(t, request)
	if !n.shows(t, "vaultmount_checkpoint_mounted 1") {
		t.Error("the metric says that the state is not mounted")
	}
	foreign := filepath.Join(n.StateDirectory(), "foreign")
	must(t, unix.Unmount(n.StateDirectory(), 0))
	must(t, os.WriteFile(foreign, nil, 0o600))
	if !n.shows(t, "vaultmount_checkpoint_mounted 0") {
		t.Error("the metric says that the state is mounted")
	}
	rig.Eventually(t, "it is told", func() bool {
		return strings.Contains(n.process.Log.String(), `"State is not mounted any more, and cannot be mounted again`)
	})
	n.mustUnpublish(t, request)
	rig.Eventually(t, "no token is left", func() bool { return vault.PodTokens(t) == 0 })
	if got := onDisk(t); len(got) != 1 {
		t.Errorf("on the disk are %q", got)
	}
	must(t, os.Remove(foreign))
	rig.Eventually(t, "the state is mounted again", func() bool { return n.shows(t, "vaultmount_checkpoint_mounted 1") })
	n.process.Stop(t)
	n.requireClean(t)
}

// Somebody unmounts a volume of a pod that runs: what would be refreshed is not
// written to the disk beneath, people are told, and the kubelet's next call makes
// the volume anew, with the token that the containers' files go by.
func TestVolumeIsUnmounted(t *testing.T) {
	t.Parallel()
	tally.AtEnd(t, "volume unmounted under the driver", 1)
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	attributes := generations()
	attributes["static-secret-render-interval"] = "10s"
	request := n.request(t, "app", attributes)
	n.mustPublish(t, request)
	tokens := vault.Accessors(t)
	must(t, unix.Unmount(request.GetTargetPath(), 0))
	vault.SetPassword(t, password(2))
	rig.Eventually(t, "it is told", func() bool {
		return strings.Contains(n.process.Log.String(), "the volume was unmounted")
	})
	if entries, err := os.ReadDir(request.GetTargetPath()); err != nil || len(entries) > 0 {
		t.Errorf("on the disk is %v, %v", entries, err)
	}
	if !n.shows(t, "vaultmount_volumes_used_bytes 0") || !n.shows(t, "vaultmount_volumes_stale 1") {
		t.Error("the metrics count what is on the disk, or no failure")
	}
	n.mustPublish(t, request)
	if seen, err := readGeneration(request.GetTargetPath()); err != nil || seen != 2 {
		t.Errorf("the files hold generation %d, %v", seen, err)
	}
	if got := vault.Accessors(t); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(tokens))) {
		t.Errorf("there were %d tokens, and now there are %d, not all the same", len(tokens), len(got))
	}
	n.mustUnpublish(t, request)
	rig.Eventually(t, "no token is left", func() bool { return vault.PodTokens(t) == 0 })
	n.requireClean(t)
}

// shows reports whether the driver's metrics have a line.
func (n *node) shows(t *testing.T, line string) bool {
	t.Helper()
	response, err := http.Get("http://" + n.process.Address(t, "Serving health and metrics") + "/metrics")
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return strings.Contains(string(text), "\n"+line+"\n")
}

// beneath shows what is on the disk at a path, whatever is mounted there.
func beneath(t *testing.T, target string) (names func(*testing.T) []string) {
	t.Helper()
	view := t.TempDir()
	must(t, unix.Mount(filepath.Dir(target), view, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(view, unix.MNT_DETACH)) })
	return func(t *testing.T) []string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(view, filepath.Base(target), "*"))
		must(t, err)
		return found
	}
}
