package component

import (
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/test/rig"
)

// replicas of one deployment on one node.
const replicas = 20

// sharedFixture is a node whose pods share logins, and a Vault that keeps an account
// of what it was asked.
type sharedFixture struct {
	*lastingFixture
	node     *node
	clock    *clocktesting.FakeClock
	requests []*csi.NodePublishVolumeRequest
}

const otherPath = "internal/data/database/other"

func startSharingNode(t *testing.T) *sharedFixture {
	t.Helper()
	f := &sharedFixture{lastingFixture: startLastingVault(t), clock: clocktesting.NewFakeClock(time.Now())}
	f.Write(t, otherPath, map[string]any{"data": map[string]any{"password": password}})
	f.Write(t, "sys/mounts/pki", map[string]any{"type": "pki"})
	f.Write(t, "pki/root/generate/internal", map[string]any{"common_name": "test", "ttl": "24h", "key_type": "ec"})
	f.Write(t, "pki/roles/app", map[string]any{"allowed_domains": "app.internal", "allow_bare_domains": true, "key_type": "ec", "generate_lease": true, "ttl": "2h"})
	f.role(t, "shop", `
		path "internal/data/database/*" { capabilities = ["read"] }
		path "old/*" { capabilities = ["read"] }
		path "pki/issue/app" { capabilities = ["update"] }`, nil)
	f.node = newNode(t, f.Server.Address, f.Vault)
	f.node.clock, f.node.sharing = f.clock, provider.ShareServiceAccount
	f.node.start(t)
	for i := range replicas {
		f.requests = append(f.requests, f.node.request(t, podName(i), map[string]string{
			"role": "shop", "template/a": passwordTemplate, "secret/b": otherPath, "template/c": `{{ with secret "old/app" }}{{ .Data.name }}{{ end }}`,
		}))
	}
	return f
}

func (f *sharedFixture) requireRequests(t *testing.T, when string, logins, reads int) {
	t.Helper()
	if got := f.lastingFixture.requests(t, "update", "auth/jwt/login"); got != logins {
		t.Errorf("%s: %d logins, want %d", when, got, logins)
	}
	for _, path := range []string{"internal/data/database/config", otherPath, "old/app"} {
		if got := f.lastingFixture.requests(t, "read", path); got != reads {
			t.Errorf("%s: %d reads of %s, want %d", when, got, path, reads)
		}
	}
}

// tokens counts the Vault tokens of pods, once all that are to be revoked are.
func (f *sharedFixture) tokens(t *testing.T) int {
	t.Helper()
	rig.Eventually(t, "what is to be revoked is", func() bool { return f.node.provider.Stats(nil).PendingRevocations == 0 })
	return f.PodTokens(t)
}

// As Vault's own audit log tells it: twenty replicas are one login and one read of
// each secret when they start, and one read of each per interval; also over a restart
// of the driver. What changes reaches all. The token is revoked with the last pod.
func TestReplicasShareALogin(t *testing.T) {
	t.Parallel()
	f := startSharingNode(t)
	n := f.node
	eachAtOnce(t, f.requests, func(request *csi.NodePublishVolumeRequest) error {
		_, err := n.calls.NodePublishVolume(t.Context(), request)
		return err
	})
	f.requireRequests(t, "after the start", 1, 1)
	if got := f.tokens(t); got != 1 {
		t.Errorf("Vault holds %d tokens of pods", got)
	}

	f.SetPassword(t, "rotated")
	n.pass(t, f.clock, provider.DefaultInterval)
	f.requireRequests(t, "after an interval", 1, 2)
	for _, request := range f.requests {
		if got := mustRead(t, rig.VolumeFile(request, "a")); got != "rotated" {
			t.Errorf("%s holds %q", request.GetVolumeId(), got)
		}
	}

	n.stop()
	n.start(t)
	for _, request := range f.requests {
		n.mustPublish(t, request)
	}
	n.waitIdle(t)
	f.requireRequests(t, "after a restart", 1, 2)
	n.pass(t, f.clock, provider.DefaultInterval)
	f.requireRequests(t, "an interval later", 1, 3)
	volumes, err := status.Client{Socket: kubeletplugin.StatusSocket(n.kubelet.Root, driverName)}.Volumes(t.Context())
	if err != nil || len(volumes) != replicas {
		t.Fatalf("the driver tells of %d volumes, %v", len(volumes), err)
	}
	for _, v := range volumes {
		if v.State != status.Fresh || v.Shared == nil || v.Shared.Pods != replicas || v.Shared.Logins != 1 || v.Session.Logins != 0 {
			t.Errorf("the driver tells of %s: %+v, %+v", v.ID, v, v.Shared)
		}
	}

	for _, request := range f.requests[1:] {
		n.mustUnpublish(t, request)
	}
	if got := f.tokens(t); got != 1 {
		t.Errorf("with one pod left, Vault holds %d tokens of pods", got)
	}
	n.mustUnpublish(t, f.requests[0])
	if got := f.tokens(t); got != 0 {
		t.Errorf("after the last pod, Vault holds %d tokens of pods", got)
	}
	f.requireRequests(t, "in the end", 1, 3)
	n.logs.requireNone(t, "rotated", "hvs.", "eyJ")
}

// What Vault makes for one pod is under a token of its own, and goes with it, while
// its static secrets are those of the others.
func TestReplicaWithALeaseLogsInItself(t *testing.T) {
	t.Parallel()
	f := startSharingNode(t)
	n := f.node
	n.mustPublish(t, f.requests[0])
	leased := n.request(t, "leased", map[string]string{
		"role": "shop", "template/a": passwordTemplate,
		"template/tls": `{{ with secret "pki/issue/app" "common_name=app.internal" }}{{ .Data.certificate }}{{ end }}`,
	})
	shown := n.request(t, "shown", map[string]string{"role": "shop", "template/a": passwordTemplate, "token-file": "token"})
	n.mustPublish(t, leased)
	n.mustPublish(t, shown)
	f.requireRequests(t, "after the start", 3, 1)
	if got := f.tokens(t); got != 3 {
		t.Errorf("Vault holds %d tokens of pods", got)
	}
	if got := f.leases(t); got != 1 {
		t.Errorf("Vault holds %d leases", got)
	}
	if _, err := f.Root.Auth().Token().LookupWithContext(t.Context(), mustRead(t, rig.VolumeFile(shown, "token"))); err != nil {
		t.Errorf("the token in the file is none: %v", err)
	}
	n.mustUnpublish(t, leased)
	// Vault ends a token at once, and its leases soon after.
	rig.Eventually(t, "the lease goes with its pod", func() bool { return f.leases(t) == 0 })
	if got := f.tokens(t); got != 2 {
		t.Errorf("after the pod with a lease, Vault holds %d tokens of pods", got)
	}
	for i, request := range []*csi.NodePublishVolumeRequest{shown, f.requests[0]} {
		n.mustUnpublish(t, request)
		if got := f.tokens(t); got != 1-i {
			t.Errorf("after %s, Vault holds %d tokens of pods", request.GetVolumeId(), got)
		}
	}
}

func (f *sharedFixture) leases(t *testing.T) int {
	t.Helper()
	listed, err := f.Root.Logical().ListWithContext(t.Context(), "sys/leases/lookup/pki/issue/app")
	require.NoError(t, err)
	if listed == nil {
		return 0
	}
	return len(listed.Data["keys"].([]any))
}

// An administrator revokes the token that the replicas share: one login brings the
// next, and no file is lost.
func TestRevokedTokenOfReplicasIsReplacedOnce(t *testing.T) {
	t.Parallel()
	f := startSharingNode(t)
	n := f.node
	for _, request := range f.requests {
		n.mustPublish(t, request)
	}
	for _, accessor := range f.Accessors(t) {
		f.Write(t, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	}
	f.SetPassword(t, "rotated")
	n.pass(t, f.clock, provider.DefaultInterval)
	f.requireRequests(t, "after an interval", 2, 2)
	for _, request := range f.requests {
		if got := mustRead(t, rig.VolumeFile(request, "a")); got != "rotated" {
			t.Errorf("%s holds %q", request.GetVolumeId(), got)
		}
	}
	for _, status := range n.volumes.Statuses() {
		if status.Err != nil {
			t.Errorf("%s: %v", status.VolumeID, status.Err)
		}
	}
}
