// Package component tests the driver's parts together on one machine, with real
// ones next to them: tmpfs mounts, a Vault server, gRPC over unix sockets. What
// it plays itself is the kubelet, as a client of the driver's sockets.
package component

import (
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

const (
	driverName = rig.DriverName
	password   = rig.Password
)

// node is a driver that serves on its sockets, and all that a test needs to play
// the kubelet in front of it.
type node struct {
	*vaultFixture
	kubelet string // root directory
	config  driver.Config
	clock   clock.Clock
	logs    *logBuffer
	sharing provider.Sharing

	calls    csi.NodeClient
	volumes  *volumes.Manager
	provider *provider.Manager
	stop     func() // ends the driver; what is mounted stays
}

// startNode runs a driver in this process, so that the race detector sees it.
func startNode(t *testing.T, address string, fixture *vaultFixture, changes ...func(*driver.Config)) *node {
	t.Helper()
	n := newNode(t, address, fixture, changes...)
	n.start(t)
	return n
}

func newNode(t *testing.T, address string, fixture *vaultFixture, changes ...func(*driver.Config)) *node {
	t.Helper()
	n := &node{vaultFixture: fixture, kubelet: newKubelet(t), clock: clock.RealClock{}, logs: &logBuffer{}}
	n.config = rig.NewConfig(n.kubelet, address)
	for _, change := range changes {
		change(&n.config)
	}
	t.Cleanup(func() {
		rig.RequireNoSecretIn(t, "driver", &n.logs.Log)
		if t.Failed() {
			t.Logf("log of the driver:\n%s", n.logs)
		}
	})
	return n
}

// start runs a driver on the node; the one before must have been stopped.
func (n *node) start(t *testing.T) {
	t.Helper()
	d := &rig.InProcess{Config: n.config, Clock: n.clock, Log: &n.logs.Log, Sharing: n.sharing}
	d.Start(t)
	n.calls, n.volumes, n.provider, n.stop = d.Calls, d.Volumes, d.Provider, d.Stop
}

// newKubelet returns the root directory of a kubelet.
func newKubelet(t *testing.T) string {
	t.Helper()
	return rig.NewKubelet(t).Root
}

func (n *node) endpoint() string { return kubeletplugin.Endpoint(n.kubelet, driverName) }

// dial connects to a unix socket, also to one that is not there yet.
func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// request is what the kubelet sends for a volume of a pod of that name.
func (n *node) request(t *testing.T, pod string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	return (&rig.Kubelet{Root: n.kubelet}).Request(t, n.Vault, pod, attributes)
}

// absent leaves an attribute out that request would set.
const absent = rig.Absent

func unpublishRequest(request *csi.NodePublishVolumeRequest) *csi.NodeUnpublishVolumeRequest {
	return rig.Unpublish(request)
}

// vaultFixture is a rig.Vault with what only these tests do with it.
type vaultFixture struct {
	*rig.Vault
	server *vaultserver.Server
	root   *api.Client
}

func startVault(t *testing.T) *vaultFixture {
	t.Helper()
	return setUpVault(t, vaultserver.ForTest(t, nil))
}

func setUpVault(t *testing.T, server *vaultserver.Server) *vaultFixture {
	t.Helper()
	v := rig.SetUpVault(t, server)
	return &vaultFixture{Vault: v, server: v.Server, root: v.Root}
}

// noVault issues tokens that no Vault knows.
func noVault(t *testing.T) *vaultFixture { return &vaultFixture{Vault: rig.NewIssuer(t)} }

func (f *vaultFixture) write(t *testing.T, path string, data map[string]any) {
	t.Helper()
	f.Write(t, path, data)
}

func (f *vaultFixture) podTokens(t *testing.T) int {
	t.Helper()
	return f.PodTokens(t)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	rig.Eventually(t, what, condition)
}

// logBuffer collects what a driver logs while it runs.
type logBuffer struct{ rig.Log }

func (b *logBuffer) requireNone(t *testing.T, canaries ...string) {
	t.Helper()
	text := b.String()
	if text == "" {
		t.Error("nothing was logged, so the logs prove nothing")
	}
	for _, canary := range canaries {
		if canary == "" || strings.Contains(text, canary) {
			t.Errorf("the logs hold %q", canary)
		}
	}
}

func volumeFile(request *csi.NodePublishVolumeRequest, name string) string {
	return rig.VolumeFile(request, name)
}

func podName(i int) string { return fmt.Sprintf("pod-%d", i) }
