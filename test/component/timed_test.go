package component

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

// startTimedNode runs a driver whose clock is the test's. Vault's own goes on as
// always, so that leases last longer than the driver thinks.
func startTimedNode(t *testing.T, fixture *rig.Vault) (*node, *clocktesting.FakeClock) {
	t.Helper()
	clock := clocktesting.NewFakeClock(time.Now())
	n := newNode(t, fixture.Server.Address, fixture)
	n.clock = clock
	n.start(t)
	return n, clock
}

// pass lets time go by on the driver's clock, from one thing that is due to the
// next, and waits until all that was due is done.
func (n *node) pass(t *testing.T, clock *clocktesting.FakeClock, duration time.Duration) {
	t.Helper()
	end := clock.Now().Add(duration)
	for {
		n.waitIdle(t)
		next := n.nextDue()
		if next.IsZero() || next.After(end) {
			break
		}
		clock.SetTime(next)
	}
	clock.SetTime(end)
	n.waitIdle(t)
}

func (n *node) nextDue() time.Time {
	var next time.Time
	for _, volume := range n.volumes.Statuses() {
		if next.IsZero() || !volume.Next.IsZero() && volume.Next.Before(next) {
			next = volume.Next
		}
	}
	return next
}

// settle waits until nothing is due.
func (n *node) waitIdle(t *testing.T) {
	t.Helper()
	rig.Eventually(t, "all that is due is done", func() bool {
		next := n.nextDue()
		return next.IsZero() || next.After(n.clock.Now())
	})
}

func (n *node) mustPublish(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	_, err := n.calls.NodePublishVolume(t.Context(), request)
	require.NoError(t, err)
}

func (n *node) mustUnpublish(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	_, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
	require.NoError(t, err)
}

const passwordTemplate = `{{ with secret "internal/data/database/config" }}{{ .Data.data.password }}{{ end }}`

func TestRotationReachesTheFiles(t *testing.T) {
	fixture := rig.StartVault(t)
	n, clock := startTimedNode(t, fixture)
	request := n.request(t, "rotating", map[string]string{"template/a": passwordTemplate, "template/b": passwordTemplate, "template/c": "fixed", "perms/a": "0440", "uid": "100"})
	n.mustPublish(t, request)
	before := identify(t, request.GetTargetPath())
	n.pass(t, clock, time.Hour)
	if after := identify(t, request.GetTargetPath()); after != before {
		t.Errorf("unchanged content was written again: %+v became %+v", before, after)
	}
	fixture.SetPassword(t, "rotated")
	n.pass(t, clock, 5*time.Minute)
	for file, want := range map[string]string{"a": "rotated", "b": "rotated", "c": "fixed"} {
		if got := mustRead(t, rig.VolumeFile(request, file)); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	info, err := os.Stat(rig.VolumeFile(request, "a"))
	if err != nil || info.Mode().Perm() != 0o440 {
		t.Errorf("the new file has mode %v, %v", info.Mode(), err)
	}
	after := identify(t, request.GetTargetPath())
	if after.device != before.device || after.generation == before.generation {
		t.Errorf("%+v became %+v, want the same mount with other files", before, after)
	}
	if got := fixture.PodTokens(t); got != 1 {
		t.Errorf("Vault holds %d tokens of pods, want 1", got)
	}
	n.logs.requireNone(t, password, "rotated", "hvs.", "eyJ")
}

// What Vault really says when a token may not be renewed, and when it is revoked:
// in both cases a new one is there before it is missed.
func TestTokenFileFollowsTheToken(t *testing.T) {
	fixture := rig.StartVault(t)
	for name, role := range map[string]map[string]any{
		"batch":     {"token_type": "batch"},
		"unrenewed": {"token_no_default_policy": true},
	} {
		settings := map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"}, "bound_subject": "system:serviceaccount:default:internal-app",
			"token_policies": []string{"internal-app"}, "token_ttl": "1h",
		}
		for key, value := range role {
			settings[key] = value
		}
		fixture.Write(t, "auth/jwt/role/"+name, settings)
		t.Run(name, func(t *testing.T) {
			n, clock := startTimedNode(t, fixture)
			request := n.request(t, name, map[string]string{"role": name, "token-file": "token", "template/a": passwordTemplate})
			n.mustPublish(t, request)
			before := mustRead(t, rig.VolumeFile(request, "token"))
			n.pass(t, clock, 40*time.Minute)
			if got := mustRead(t, rig.VolumeFile(request, "token")); got != before {
				t.Error("the token was replaced early")
			}
			n.pass(t, clock, 6*time.Minute)
			after := mustRead(t, rig.VolumeFile(request, "token"))
			if after == before || !strings.HasPrefix(after, "hv") || strings.TrimSpace(after) != after {
				t.Errorf("the token file holds %q after %q", after, before)
			}
			client, err := fixture.Server.Client()
			require.NoError(t, err)
			client.SetToken(after)
			if _, err := client.Logical().ReadWithContext(t.Context(), "internal/data/database/config"); err != nil {
				t.Errorf("the token in the file does not work: %v", err)
			}
			n.mustUnpublish(t, request)
			// Neither kind can be revoked by itself: what the log says is not the token.
			n.stop()
			n.logs.requireNone(t, before, after)
		})
	}
}

func TestRevokedTokenIsNoticedAtTheNextRead(t *testing.T) {
	fixture := rig.StartVault(t)
	n, clock := startTimedNode(t, fixture)
	request := n.request(t, "revoked", map[string]string{"token-file": "token", "template/a": passwordTemplate})
	n.mustPublish(t, request)
	before := mustRead(t, rig.VolumeFile(request, "token"))
	fixture.Write(t, "auth/token/revoke", map[string]any{"token": before})
	fixture.SetPassword(t, "rotated")
	n.pass(t, clock, 5*time.Minute)
	if got := mustRead(t, rig.VolumeFile(request, "a")); got != "rotated" {
		t.Errorf("the file holds %q", got)
	}
	if after := mustRead(t, rig.VolumeFile(request, "token")); after == before {
		t.Error("the token file holds the revoked token")
	}
	if got := fixture.PodTokens(t); got != 1 {
		t.Errorf("Vault holds %d tokens of pods, want 1", got)
	}
}

// Renewing is Vault's to grant: the token's last renewal shows that it was asked.
func TestTokenIsRenewed(t *testing.T) {
	fixture := rig.StartVault(t)
	n, clock := startTimedNode(t, fixture)
	request := n.request(t, "renewed", map[string]string{"token-file": "token"})
	n.mustPublish(t, request)
	n.pass(t, clock, 10*time.Hour)
	secret, err := fixture.Root.Auth().Token().LookupWithContext(t.Context(), mustRead(t, rig.VolumeFile(request, "token")))
	require.NoError(t, err)
	if secret.Data["last_renewal_time"] == nil {
		t.Errorf("it was never renewed: %v", secret.Data["ttl"])
	}
	if got := fixture.PodTokens(t); got != 1 {
		t.Errorf("Vault holds %d tokens of pods, want 1", got)
	}
}

func TestLifecycleAttributes(t *testing.T) {
	fixture := rig.StartVault(t)
	n, clock := startTimedNode(t, fixture)
	frozen := n.request(t, "frozen", map[string]string{"template/a": passwordTemplate, "refresh": "false"})
	often := n.request(t, "often", map[string]string{"template/a": passwordTemplate, "static-secret-render-interval": "1s"})
	kept := n.request(t, "kept", map[string]string{"template/a": passwordTemplate, "revoke-on-unpublish": "false"})
	for _, request := range []*csi.NodePublishVolumeRequest{frozen, often, kept} {
		n.mustPublish(t, request)
	}
	fixture.SetPassword(t, "rotated")
	n.pass(t, clock, 10*time.Second)
	for request, want := range map[*csi.NodePublishVolumeRequest]string{frozen: password, often: "rotated", kept: password} {
		if got := mustRead(t, rig.VolumeFile(request, "a")); got != want {
			t.Errorf("after 10 s, %s holds %q, want %q", request.GetVolumeId(), got, want)
		}
	}
	n.pass(t, clock, time.Hour)
	for request, want := range map[*csi.NodePublishVolumeRequest]string{frozen: password, often: "rotated", kept: "rotated"} {
		if got := mustRead(t, rig.VolumeFile(request, "a")); got != want {
			t.Errorf("after an hour, %s holds %q, want %q", request.GetVolumeId(), got, want)
		}
	}
	if !strings.Contains(n.logs.String(), `attribute="static-secret-render-interval" asked="1s" used="10s"`) {
		t.Error("the log does not tell that the interval was raised")
	}
	for _, request := range []*csi.NodePublishVolumeRequest{frozen, often, kept} {
		n.mustUnpublish(t, request)
	}
	rig.Eventually(t, "all tokens but the kept one are revoked", func() bool { return fixture.PodTokens(t) == 1 })
}

// Pods go while their volumes are refreshed: nothing comes back, and nothing is
// left.
func TestUnpublishDuringRefreshes(t *testing.T) {
	const pods = 30
	fixture := rig.StartVault(t)
	n, clock := startTimedNode(t, fixture)
	first := n.request(t, "first", map[string]string{"template/a": passwordTemplate})
	n.mustPublish(t, first)
	n.mustUnpublish(t, first)
	rig.Eventually(t, "the first token is revoked", func() bool { return fixture.PodTokens(t) == 0 && len(n.records(t)) == 0 })
	before := ownGoroutines(t)
	var requests []*csi.NodePublishVolumeRequest
	for i := range pods {
		requests = append(requests, n.request(t, podName(i), map[string]string{"template/a": passwordTemplate}))
	}
	for _, request := range requests {
		n.mustPublish(t, request)
	}
	fixture.SetPassword(t, "rotated")
	clock.Step(5 * time.Minute) // all are due
	eachAtOnce(t, requests, func(request *csi.NodePublishVolumeRequest) error {
		_, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
		return err
	})
	for _, request := range requests {
		rig.RequireNothing(t, request.GetTargetPath())
	}
	rig.Eventually(t, "all tokens are revoked", func() bool { return fixture.PodTokens(t) == 0 })
	rig.Eventually(t, "nothing is left to remember", func() bool { return len(n.records(t)) == 0 })
	rig.Eventually(t, "no goroutine is left", func() bool { return ownGoroutines(t) <= before })
	if strings.Contains(n.logs.String(), "Volume not refreshed") {
		t.Error("a volume that is gone is reported as one that fails")
	}
}
