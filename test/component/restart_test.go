package component

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

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
	if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	before := identify(t, request.GetTargetPath())
	fixture.vault.Kill()
	for range 2 {
		n.kill(t)
		n.startAgain(t)
		if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
			t.Fatalf("republish while Vault is down: %v", err)
		}
		if after := identify(t, request.GetTargetPath()); after != before {
			t.Errorf("the mount changed from %+v to %+v", before, after)
		}
		if got := mustRead(t, volumeFile(request, "db")); got != connection {
			t.Errorf("the file holds %q", got)
		}
	}
	if err := fixture.vault.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	rotate(t, fixture.vaultFixture)
	n.eventuallyHolds(t, request, "db", rotated)
	if got := fixture.requests(t, "update", "auth/jwt/login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}

	// Neither does the removal of a volume wait for Vault, nor is what it had in
	// Vault forgotten by the next process.
	fixture.vault.Kill()
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request)); err != nil {
		t.Errorf("unpublish while Vault is down: %v", err)
	}
	requireNothing(t, request.GetTargetPath())
	n.kill(t)
	n.startAgain(t)
	if err := fixture.vault.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is revoked", func() bool { return fixture.podTokens(t) == 0 })
}

const rotated = "postgresql://db-readonly-username:rotated@postgres:5432/wizard"

func rotate(t *testing.T, fixture *vaultFixture) {
	t.Helper()
	fixture.write(t, "internal/data/database/config", map[string]any{"data": map[string]any{"username": "db-readonly-username", "password": "rotated"}})
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
	eventually(t, "the volume is refreshed", func() bool {
		err = (&rig.Kubelet{Root: n.kubelet}).Refresh(t.Context(), request)
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
	eventually(t, name+" is refreshed", func() bool {
		n.refresh(t, request)
		got = mustRead(t, volumeFile(request, name))
		return got == want
	})
}
