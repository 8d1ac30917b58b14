package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/test/rig"
)

// node is vaultmount's program on a node, with its Vault and the floor beside it.
type node struct {
	*rig.Node
	floor *floor
	paths []string
}

const mostSecrets = 5

// usual is what every node of the benchmark has: no volume is refused for want of
// space, and the log is as long as a DaemonSet's.
func usual() []string { return []string{"--verbosity=2", "--volume-capacity=0", "--volume-size=64Ki"} }

func startNode(b testing.TB, vault *rig.Vault, arguments ...string) *node {
	b.Helper()
	return startNodeWith(b, vault, rig.Program(b), arguments...)
}

func startNodeWith(b testing.TB, vault *rig.Vault, program string, arguments ...string) *node {
	b.Helper()
	n := &node{Node: rig.NewNode(b, vault, vault.Server.Address), floor: newFloor(vault.Server.Address)}
	for i := range mostSecrets {
		path := secretPath(i)
		vault.Write(b, path, map[string]any{"data": map[string]any{"username": rig.Username, "password": rig.Password}})
		n.paths = append(n.paths, path)
	}
	n.Process = rig.StartProgram(b, program, n.Kubelet, n.Address, append(usual(), arguments...)...)
	rig.Eventually(b, "the driver is active", func() bool { return strings.Contains(n.Process.Log.String(), `"Volumes restored"`) })
	return n
}

const secretPrefix = "internal/data/database/app-"

func secretPath(i int) string { return secretPrefix + strconv.Itoa(i) }

func templateOf(path string) string {
	return fmt.Sprintf("{{- with secret %q -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n", path)
}

// request is what the kubelet sends for a pod with a file for each secret.
func (n *node) request(b testing.TB, pod string, secrets int) *csi.NodePublishVolumeRequest {
	b.Helper()
	attributes := map[string]string{}
	for i, path := range n.paths[:secrets] {
		attributes[fmt.Sprintf("template/file-%d", i)] = templateOf(path)
	}
	return n.Request(b, n.Vault, pod, attributes)
}

// requests are those of many pods.
func (n *node) requests(b testing.TB, name string, count, secrets int) []*csi.NodePublishVolumeRequest {
	b.Helper()
	all := make([]*csi.NodePublishVolumeRequest, count)
	for i := range all {
		all[i] = n.request(b, fmt.Sprintf("%s-%d", name, i), secrets)
	}
	return all
}

// publish returns the time from the call until all files are read.
func (n *node) publish(ctx context.Context, request *csi.NodePublishVolumeRequest, secrets int) (time.Duration, error) {
	return publishBy(ctx, n.Calls, request, secrets)
}

func publishBy(ctx context.Context, calls csi.NodeClient, request *csi.NodePublishVolumeRequest, secrets int) (time.Duration, error) {
	start := time.Now()
	if _, err := calls.NodePublishVolume(ctx, request); err != nil {
		return 0, err
	}
	for i := range secrets {
		if _, err := os.ReadFile(rig.VolumeFile(request, fmt.Sprintf("file-%d", i))); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// inParallel calls for each index, a number at a time, and fails the benchmark at
// the first error.
func inParallel(b testing.TB, count, concurrency int, do func(i int) error) {
	b.Helper()
	indices := make(chan int)
	failures := make(chan error, count)
	var group sync.WaitGroup
	for range concurrency {
		group.Go(func() {
			for i := range indices {
				if err := do(i); err != nil {
					failures <- err
				}
			}
		})
	}
	for i := range count {
		indices <- i
	}
	close(indices)
	group.Wait()
	close(failures)
	for err := range failures {
		b.Fatal(err)
	}
}

// end ends the driver, so that it takes no part in what is measured next. Volumes
// that are there stay for the benchmark to clean up.
func (n *node) end(b testing.TB) {
	b.Helper()
	n.Process.Stop(b)
}

// remove takes volumes down again, and waits until their tokens are revoked: what
// is measured next has Vault to itself.
func (n *node) remove(b testing.TB, requests []*csi.NodePublishVolumeRequest) {
	b.Helper()
	inParallel(b, len(requests), 8, func(i int) error {
		_, err := n.Calls.NodeUnpublishVolume(b.Context(), rig.Unpublish(requests[i]))
		return err
	})
	rig.Eventually(b, "no token waits to be revoked", func() bool { return n.metric(b, "vaultmount_token_revocations_pending") == 0 })
}
