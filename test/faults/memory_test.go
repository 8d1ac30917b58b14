package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/test/canary"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// fill writes into a file system until nothing more fits.
func fill(t *testing.T, directory string) (empty func()) {
	t.Helper()
	path := filepath.Join(directory, "filler")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	for part := make([]byte, 1<<20); ; {
		if _, err := file.Write(part); err != nil {
			break
		}
	}
	return func() { require.NoError(t, os.Remove(path)) }
}

// The state is full: pods start and go, their files are refreshed, and a restart
// costs a login. When there is space again, nothing is left behind.
func TestStateIsFull(t *testing.T) {
	tally.AtEnd(t, "state of the node full", 2)
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	before, after := n.request(t, "before", generations()), n.request(t, "after", generations())
	n.MustPublish(t, before)
	empty := fill(t, n.StateDirectory())
	n.MustPublish(t, after)
	n.Process.Kill(t)
	n.Again(t)
	vault.SetPassword(t, password(2))
	for _, request := range []*csi.NodePublishVolumeRequest{before, after} {
		rig.Eventually(t, "the files are refreshed", func() bool {
			require.NoError(t, n.refresh(t.Context(), request))
			seen, err := readGeneration(request.GetTargetPath())
			return err == nil && seen == 2
		})
		n.MustUnpublish(t, request)
	}
	empty()
	n.Process.Stop(t)
	// The first token of the second pod was known to no record.
	if got := vault.PodTokens(t); got > 1 {
		t.Errorf("Vault holds %d tokens of pods", got)
	}
	n.requireClean(t)
}

// A node comes back: its tmpfs are gone, the pods have the ids they had, and the
// kubelet publishes all volumes again, or takes down what it finds no more use for.
func TestNodeReboots(t *testing.T) {
	tally.AtEnd(t, "reboot of the node", 2)
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	stays, goes := n.request(t, "stays", generations()), n.request(t, "goes", generations())
	n.MustPublish(t, stays)
	n.MustPublish(t, goes)
	n.Process.Kill(t)
	for _, request := range []*csi.NodePublishVolumeRequest{stays, goes} {
		require.NoError(t, unix.Unmount(request.GetTargetPath(), 0)) // the directory is on disk, and stays
	}
	require.NoError(t, tmpfs.Remove(n.StateDirectory()))
	n.Again(t)
	n.MustUnpublish(t, goes)
	n.MustPublish(t, stays)
	if seen, err := readGeneration(stays.GetTargetPath()); err != nil || seen != 1 {
		t.Errorf("the files hold generation %d, %v", seen, err)
	}
	n.MustUnpublish(t, stays)
	rig.Eventually(t, "only the tokens from before are left", func() bool { return vault.PodTokens(t) == 2 })
	n.requireClean(t)
}

// Nothing of the driver's memory gets into a core dump, and what is on disk without
// its memory holds nothing secret.
func TestSecretsStayInMemory(t *testing.T) {
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	request := n.request(t, "app", map[string]string{"template/a": `{{ with secret "internal/data/database/config" }}{{ .Data.data.password }}-rendered{{ end }}`, "token-file": "token"})
	n.MustPublish(t, request)
	token, err := os.ReadFile(rig.VolumeFile(request, "token"))
	require.NoError(t, err)
	canaries := canary.Canaries{"the password": rig.Password, "the Vault token": string(token), "the rendered file": rig.Password + "-rendered", "the service-account tokens": request.GetSecrets()[rig.TokensKey]}
	n.fail(t)
	looked := canaries.RequireNoneOf(t, n.Process.Shown(t, n.Kubelet, request.GetTargetPath()))
	n.MustUnpublish(t, request)
	n.Process.Stop(t)
	canaries.RequireNone(t, "log of the driver", n.Process.Log.String())
	tally.AtEnd(t, "texts and files searched for secrets", looked+1)
}

// fail has a publish refused by Vault, so that its errors are logged and counted.
func (n *node) fail(t *testing.T) {
	t.Helper()
	request := n.request(t, "refused", map[string]string{"role": "nobody", "template/a": `{{ with secret "internal/data/database/config" }}{{ .Data.data.password }}{{ end }}`})
	err := n.Publish(t.Context(), request)
	if err == nil {
		t.Fatal("the volume was published")
	}
	rig.Planted().RequireNone(t, "error of a publish", err.Error())
}

// longRun makes a test run as long as make conformance wants it; without it, it
// takes seconds.
const longRun = "VAULTMOUNT_LONG"

// A node's volumes come and go over and over: what they took is given back.
func TestVolumesGiveBackWhatTheyTook(t *testing.T) {
	volumes, times := 200, 3
	if os.Getenv(longRun) != "" {
		volumes, times = 1000, 10
	}
	tally.AtEnd(t, "volumes opened and closed", volumes*times)
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address, "--volume-size=64Ki")
	var requests []*csi.NodePublishVolumeRequest
	for i := range volumes {
		requests = append(requests, n.request(t, fmt.Sprintf("pod-%d", i), map[string]string{"template/a": `{{ with secret "internal/data/database/config" }}{{ .Data.data.password }}{{ end }}`}))
	}
	var first, last taken
	for round := range times {
		n.atOnce(t, requests, n.open)
		if got := len(n.Mounts(t)); got != volumes {
			t.Fatalf("%d volumes are mounted, want %d", got, volumes)
		}
		n.atOnce(t, requests, n.close)
		rig.Eventually(t, "all tokens are revoked", func() bool { return vault.PodTokens(t) == 0 })
		n.requireClean(t)
		last = n.taken(t)
		t.Logf("after %d volumes: %+v", (round+1)*volumes, last)
		if round == 0 {
			first = last
		}
	}
	// The first round fills pools and caches. What grows by even one for a volume
	// would be hundreds by now, or thousands.
	if last.files > first.files+100 || last.threads > first.threads+20 || last.resident > first.resident+48<<20 ||
		last.goroutines > first.goroutines+20 || last.heap > first.heap+8<<20 {
		t.Errorf("after the first round the driver had %+v, in the end %+v", first, last)
	}
	n.Process.Stop(t)
}

func (n *node) open(t *testing.T, request *csi.NodePublishVolumeRequest) error {
	_, err := n.Calls.NodePublishVolume(t.Context(), request)
	return err
}

func (n *node) close(t *testing.T, request *csi.NodePublishVolumeRequest) error {
	_, err := n.Calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
	return err
}

// atOnce calls for many volumes, as many at a time as a kubelet does.
func (n *node) atOnce(t *testing.T, requests []*csi.NodePublishVolumeRequest, call func(*testing.T, *csi.NodePublishVolumeRequest) error) {
	t.Helper()
	var group sync.WaitGroup
	work := make(chan *csi.NodePublishVolumeRequest)
	for range 16 {
		group.Go(func() {
			for request := range work {
				if err := call(t, request); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, request := range requests {
		work <- request
	}
	close(work)
	group.Wait()
}

// taken is what a process has of the node.
type taken struct {
	files, threads, goroutines int
	resident, heap             int64
}

func (n *node) taken(t *testing.T) taken {
	t.Helper()
	n.awaitCollections(t)
	directory := fmt.Sprintf("/proc/%d", n.Process.Process.Pid)
	files, err := os.ReadDir(directory + "/fd")
	require.NoError(t, err)
	threads, err := os.ReadDir(directory + "/task")
	require.NoError(t, err)
	return taken{
		len(files), len(threads), int(n.Process.Metric(t, "go_goroutines")),
		memory(t, n.Process.Process.Pid, "VmRSS"), int64(n.Process.Metric(t, "go_memstats_heap_inuse_bytes")),
	}
}

// awaitCollections waits until garbage was collected twice: what was in use when the
// first began may have been garbage since. Each look at the metrics makes some.
func (n *node) awaitCollections(t *testing.T) {
	t.Helper()
	const collections = "go_gc_duration_seconds_count"
	before := n.Process.Metric(t, collections)
	for n.Process.Metric(t, collections) < before+2 {
		require.NoError(t, t.Context().Err())
	}
}
