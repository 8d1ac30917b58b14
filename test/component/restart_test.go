package component

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

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
