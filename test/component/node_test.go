// Package component tests the driver's parts together on one machine, with real
// ones next to them: tmpfs mounts, a Vault server, gRPC over unix sockets. What
// it plays itself is the kubelet, as a client of the driver's sockets.
package component

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/test/rig"
)

const (
	driverName = rig.DriverName
	password   = rig.Password
	mebibyte   = 1 << 20
)

// node is a driver that serves on its sockets, and all that a test needs to play
// the kubelet in front of it.
type node struct {
	*rig.Vault
	kubelet *rig.Kubelet
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
func startNode(t *testing.T, address string, fixture *rig.Vault, changes ...func(*driver.Config)) *node {
	t.Helper()
	n := newNode(t, address, fixture, changes...)
	n.start(t)
	return n
}

func newNode(t *testing.T, address string, fixture *rig.Vault, changes ...func(*driver.Config)) *node {
	t.Helper()
	n := &node{Vault: fixture, kubelet: rig.NewKubelet(t), clock: clock.RealClock{}, logs: &logBuffer{}}
	n.config = rig.NewConfig(n.kubelet.Root, address)
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

func (n *node) endpoint() string { return n.kubelet.Endpoint() }

// request is what the kubelet sends for a volume of a pod of that name.
func (n *node) request(t *testing.T, pod string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	return n.kubelet.Request(t, n.Vault, pod, attributes)
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

func podName(i int) string { return fmt.Sprintf("pod-%d", i) }

func mustRead(t *testing.T, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return string(content)
}
