package component

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/test/rig"
)

// startProcess runs the program as the DaemonSet does.
func startProcess(t *testing.T, kubelet, address string, arguments ...string) *exec.Cmd {
	t.Helper()
	return rig.StartProcess(t, &rig.Kubelet{Root: kubelet}, address, arguments...).Cmd
}

func TestProgramServesAndSurvivesItsRestarts(t *testing.T) {
	fixture := startVault(t)
	n := &node{vaultFixture: fixture, kubelet: newKubelet(t)}
	first := startProcess(t, n.kubelet, fixture.server.Address)
	n.calls = csi.NewNodeClient(dial(t, n.endpoint()))

	registrar := registration.NewRegistrationClient(dial(t, registrationLink(t, n.kubelet)))
	info, err := registrar.GetInfo(t.Context(), &registration.InfoRequest{})
	if err != nil || info.GetType() != registration.CSIPlugin || info.GetName() != driverName || info.GetEndpoint() != n.endpoint() || len(info.GetSupportedVersions()) != 1 {
		t.Errorf("registration says %v, %v", info, err)
	}
	identity, err := csi.NewIdentityClient(dial(t, n.endpoint())).GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || identity.GetName() != driverName {
		t.Errorf("identity says %v, %v", identity, err)
	}
	node, err := n.calls.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || node.GetNodeId() != "node-1" {
		t.Errorf("node info says %v, %v", node, err)
	}

	request := n.request(t, "survivor", map[string]string{"template/db": connectionTemplate})
	if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // killed
	second := startProcess(t, n.kubelet, fixture.server.Address)
	// The kubelet connects again for each call. The connection from before may not
	// have noticed yet that its other end is dead.
	n.calls = csi.NewNodeClient(dial(t, n.endpoint()))
	if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
		t.Errorf("republish after SIGKILL: %v", err)
	}
	if got := mustRead(t, volumeFile(request, "db")); got != connection {
		t.Errorf("the file holds %q", got)
	}
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request)); err != nil {
		t.Error(err)
	}
	requireNothing(t, request.GetTargetPath())

	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("after SIGTERM the program ends with %v", err)
	}
	// A driver that ends for good takes itself off the node, and its state, which
	// holds nothing any more.
	if links, err := filepath.Glob(filepath.Join(n.kubelet, "plugins_registry", "*")); err != nil || len(links) > 0 {
		t.Errorf("the kubelet still knows %v, %v", links, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(n.endpoint())); err != nil || len(entries) > 0 {
		t.Errorf("its directory holds %v, %v", entries, err)
	}
	if info, err := os.Stat(filepath.Dir(kubeletplugin.Endpoint(n.kubelet, driverName))); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory of the socket is open to others: %v, %v", info, err)
	}
}

// registrationLink waits for what the kubelet finds in its directory.
func registrationLink(t *testing.T, kubelet string) string {
	t.Helper()
	var links []string
	eventually(t, "the driver announces itself", func() bool {
		var err error
		links, err = filepath.Glob(filepath.Join(kubelet, "plugins_registry", driverName+"-reg-*.sock"))
		return err == nil && len(links) == 1
	})
	return links[0]
}

// register tells the driver what a kubelet tells that has registered it.
func register(t *testing.T, kubelet string) {
	t.Helper()
	registrar := registration.NewRegistrationClient(dial(t, registrationLink(t, kubelet)))
	if _, err := registrar.NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
}
