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

// A driver that is killed, or upgraded, while Vault is down leaves its volumes as
// they are, and the kubelet's calls for them succeed: containers may start again.
// When Vault is back, it goes on where the process before it ended.
func TestDriverRestartsWhileVaultIsDown(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	n := startProcessNode(t, fixture)
	request := n.request(t, "app", map[string]string{"template/db": connectionTemplate})
	n.mustPublish(t, request)
	before := identify(t, request.GetTargetPath())
	fixture.durable.Kill()
	for range 2 {
		n.process.Kill(t)
		n.startAgain(t)
		if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
			t.Fatalf("republish while Vault is down: %v", err)
		}
		if after := identify(t, request.GetTargetPath()); after != before {
			t.Errorf("the mount changed from %+v to %+v", before, after)
		}
		if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
			t.Errorf("the file holds %q", got)
		}
	}
	require.NoError(t, fixture.durable.Restart(t.Context()))
	rotate(t, fixture.Vault)
	n.eventuallyHolds(t, request, "db", rotated)
	if got := fixture.requests(t, "update", "auth/jwt/login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}

	// Neither does the removal of a volume wait for Vault, nor is what it had in
	// Vault forgotten by the next process.
	fixture.durable.Kill()
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request)); err != nil {
		t.Errorf("unpublish while Vault is down: %v", err)
	}
	rig.RequireNothing(t, request.GetTargetPath())
	n.process.Kill(t)
	n.startAgain(t)
	require.NoError(t, fixture.durable.Restart(t.Context()))
	rig.Eventually(t, "the token is revoked", func() bool { return fixture.PodTokens(t) == 0 })
}

const rotated = "postgresql://db-readonly-username:rotated@postgres:5432/wizard"

func rotate(t *testing.T, fixture *rig.Vault) {
	t.Helper()
	fixture.Write(t, "internal/data/database/config", map[string]any{"data": map[string]any{"username": "db-readonly-username", "password": "rotated"}})
}

// refresh does what "vaultmount refresh" does, until it succeeds.
func (n *node) refresh(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("the last refresh ends with %v", err)
		}
	}()
	rig.Eventually(t, "the volume is refreshed", func() bool {
		err = n.kubelet.Refresh(t.Context(), request)
		return err == nil
	})
}

// eventuallyHolds refreshes until a file holds a content.
func (n *node) eventuallyHolds(t *testing.T, request *csi.NodePublishVolumeRequest, name, want string) {
	t.Helper()
	got := ""
	defer func() {
		if t.Failed() {
			t.Logf("%s holds %q", name, got)
		}
	}()
	rig.Eventually(t, name+" is refreshed", func() bool {
		n.refresh(t, request)
		got = mustRead(t, rig.VolumeFile(request, name))
		return got == want
	})
}
