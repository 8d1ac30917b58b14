package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
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
	must(t, err)
	defer file.Close()
	for part := make([]byte, 1<<20); ; {
		if _, err := file.Write(part); err != nil {
			break
		}
	}
	return func() { must(t, os.Remove(path)) }
}

// The state is full: pods start and go, their files are refreshed, and a restart
// costs a login. When there is room again, nothing is left behind.
func TestStateIsFull(t *testing.T) {
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	before, after := n.request(t, "before", generations()), n.request(t, "after", generations())
	n.mustPublish(t, before)
	empty := fill(t, n.StateDirectory())
	n.mustPublish(t, after)
	n.process.Kill(t)
	n.again(t)
	vault.SetPassword(t, password(2))
	for _, request := range []*csi.NodePublishVolumeRequest{before, after} {
		rig.Eventually(t, "the files are refreshed", func() bool {
			must(t, n.publish(t.Context(), request))
			seen, err := readGeneration(request.GetTargetPath())
			return err == nil && seen == 2
		})
		n.mustUnpublish(t, request)
	}
	empty()
	n.process.Stop(t)
	// The first token of the second pod was known to no record.
	if got := vault.PodTokens(t); got > 1 {
		t.Errorf("Vault holds %d tokens of pods", got)
	}
	n.requireClean(t)
	tally.Record(t, "state of the node full", 2, 0)
}

// A node comes back: its tmpfs are gone, the pods have the ids they had, and the
// kubelet publishes all volumes again, or takes down what it finds no more use for.
func TestNodeReboots(t *testing.T) {
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	vault.SetPassword(t, password(1))
	stays, goes := n.request(t, "stays", generations()), n.request(t, "goes", generations())
	n.mustPublish(t, stays)
	n.mustPublish(t, goes)
	n.process.Kill(t)
	for _, request := range []*csi.NodePublishVolumeRequest{stays, goes} {
		must(t, unix.Unmount(request.GetTargetPath(), 0)) // the directory is on disk, and stays
	}
	must(t, tmpfs.Remove(n.StateDirectory()))
	n.again(t)
	n.mustUnpublish(t, goes)
	n.mustPublish(t, stays)
	if seen, err := readGeneration(stays.GetTargetPath()); err != nil || seen != 1 {
		t.Errorf("the files hold generation %d, %v", seen, err)
	}
	n.mustUnpublish(t, stays)
	rig.Eventually(t, "only the tokens from before are left", func() bool { return vault.PodTokens(t) == 2 })
	n.requireClean(t)
	tally.Record(t, "reboot of the node", 2, 0)
}

// Nothing of the driver's memory gets into a core dump, and what is on disk without
// its memory holds nothing secret.
func TestSecretsStayInMemory(t *testing.T) {
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address)
	request := n.request(t, "app", map[string]string{"template/a": `{{ with secret "internal/data/database/config" }}{{ .Data.data.password }}-rendered{{ end }}`, "token-file": "token"})
	n.mustPublish(t, request)
	token, err := os.ReadFile(rig.VolumeFile(request, "token"))
	must(t, err)
	processes := append(children(t, n.process.Process.Pid), fmt.Sprint(n.process.Process.Pid))
	if len(processes) < 2 {
		t.Error("the driver has no render worker")
	}
	for _, pid := range processes {
		limits, err := os.ReadFile("/proc/" + pid + "/limits")
		must(t, err)
		if !regexp.MustCompile(`Max core file size\s+0\s+0\s`).Match(limits) {
			t.Errorf("process %s may dump core:\n%s", pid, limits)
		}
	}
	canaries := canary.Canaries{"the password": rig.Password, "the Vault token": string(token), "the rendered file": rig.Password + "-rendered"}
	files := canaries.RequireNoneBelow(t, n.Root, n.StateDirectory(), request.GetTargetPath())
	n.mustUnpublish(t, request)
	n.process.Stop(t)
	canaries.RequireNone(t, "log of the driver", n.process.Log.String())
	lost := 0
	if t.Failed() {
		lost = 1
	}
	tally.Record(t, "files and logs searched for secrets", files+1, lost)
}

func children(t *testing.T, pid int) []string {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	var all []string
	for _, list := range lists {
		// A thread may have ended.
		if content, err := os.ReadFile(list); err == nil {
			all = append(all, strings.Fields(string(content))...)
		}
	}
	return all
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
	if last.files > first.files+100 || last.threads > first.threads+20 || last.resident > first.resident+48<<20 {
		t.Errorf("after the first round the driver had %+v, in the end %+v", first, last)
	}
	n.process.Stop(t)
	tally.Record(t, "volumes opened and closed", volumes*times, 0)
}

func (n *node) open(t *testing.T, request *csi.NodePublishVolumeRequest) error {
	_, err := n.calls.NodePublishVolume(t.Context(), request)
	return err
}

func (n *node) close(t *testing.T, request *csi.NodePublishVolumeRequest) error {
	_, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
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
	files, threads int
	resident       int64
}

func (n *node) taken(t *testing.T) taken {
	t.Helper()
	directory := fmt.Sprintf("/proc/%d", n.process.Process.Pid)
	files, err := os.ReadDir(directory + "/fd")
	must(t, err)
	threads, err := os.ReadDir(directory + "/task")
	must(t, err)
	return taken{len(files), len(threads), memory(t, n.process.Process.Pid, "VmRSS")}
}
