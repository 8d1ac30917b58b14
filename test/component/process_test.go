package component

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/test/rig"
)

func TestProgramServesAndSurvivesItsRestarts(t *testing.T) {
	fixture := rig.StartVault(t)
	n := &node{Vault: fixture, kubelet: rig.NewKubelet(t)}
	first := rig.StartProcess(t, n.kubelet, fixture.Server.Address)
	n.calls = csi.NewNodeClient(rig.Dial(t, n.endpoint()))

	registrar := n.kubelet.Registrar(t)
	info, err := registrar.GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil || info.GetType() != registration.CSIPlugin || info.GetName() != driverName || info.GetEndpoint() != n.endpoint() || len(info.GetSupportedVersions()) != 1 {
		t.Errorf("registration says %v, %v", info, err)
	}
	identity, err := csi.NewIdentityClient(rig.Dial(t, n.endpoint())).GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || identity.GetName() != driverName {
		t.Errorf("identity says %v, %v", identity, err)
	}
	node, err := n.calls.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || node.GetNodeId() != "node-1" {
		t.Errorf("node info says %v, %v", node, err)
	}

	request := n.request(t, "survivor", map[string]string{"template/db": connectionTemplate})
	n.mustPublish(t, request)
	first.Kill(t)
	second := rig.StartProcess(t, n.kubelet, fixture.Server.Address)
	// The kubelet connects again for each call. The connection from before may not
	// have noticed yet that its other end is dead.
	n.calls = csi.NewNodeClient(rig.Dial(t, n.endpoint()))
	if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
		t.Errorf("republish after SIGKILL: %v", err)
	}
	if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
		t.Errorf("the file holds %q", got)
	}
	n.mustUnpublish(t, request)
	rig.RequireNothing(t, request.GetTargetPath())

	require.NoError(t, second.Process.Signal(syscall.SIGTERM))
	if err := second.Wait(); err != nil {
		t.Errorf("after SIGTERM the program ends with %v", err)
	}
	// A driver that ends for good takes itself off the node, and its state, which
	// holds nothing any more.
	if links, err := filepath.Glob(filepath.Join(n.kubelet.Root, "plugins_registry", "*")); err != nil || len(links) > 0 {
		t.Errorf("the kubelet still knows %v, %v", links, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(n.endpoint())); err != nil || len(entries) > 0 {
		t.Errorf("its directory holds %v, %v", entries, err)
	}
	if info, err := os.Stat(filepath.Dir(kubeletplugin.Endpoint(n.kubelet.Root, driverName))); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the socket is open to others: %v, %v", info, err)
	}
}
