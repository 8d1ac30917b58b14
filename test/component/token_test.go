package component

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/test/rig"
)

// isAlive asks Vault about a token.
func isAlive(ctx context.Context, vault *rig.Vault, token string) (bool, error) {
	_, err := vault.Root.Logical().WriteWithContext(ctx, "auth/token/lookup", map[string]any{"token": token})
	switch {
	case err == nil:
		return true, nil
	case strings.Contains(err.Error(), "bad token"):
		return false, nil
	}
	return false, err
}

// The token in the file can be used at any time, although no token lasts longer
// than its max TTL.
func TestTokenFileHoldsALiveToken(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	fixture.role(t, "short", "# only what every token may", map[string]any{"token_ttl": "20s", "token_max_ttl": "30s"})
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	request := n.request(t, "app", map[string]string{"role": "short", "token-file": "vault/token", "perms/vault/token": "0640"})
	n.mustPublish(t, request)
	file := rig.VolumeFile(request, "vault/token")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file of the token is %v, %v", info, err)
	}
	seen := map[string]bool{}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	begin, slowest := time.Now(), time.Duration(0)
	for last := begin; last.Sub(begin) < span(65*time.Second, 5*time.Minute); <-tick.C {
		now := time.Now()
		slowest, last = max(slowest, now.Sub(last)), now
		token := mustRead(t, file)
		alive, err := isAlive(t.Context(), fixture.Vault, token)
		require.NoError(t, err)
		// It may have been replaced since it was read.
		if !alive && mustRead(t, file) == token && slowest < standstill {
			t.Fatalf("after %s the file holds a token that is dead", now.Sub(begin).Round(time.Millisecond))
		}
		seen[token] = true
	}
	t.Logf("%d tokens", len(seen))
	if len(seen) < 3 {
		t.Errorf("saw %d tokens; a max TTL of 30 s forces 3", len(seen))
	}
	canaries := []string{"hvs."}
	for token := range seen {
		canaries = append(canaries, token)
	}
	n.logs.requireNone(t, canaries...)
	n.mustUnpublish(t, request)
	rig.Eventually(t, "no token is left", func() bool { return fixture.PodTokens(t) == 0 })
}

func TestTokenFileCanBeForbidden(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture, func(c *driver.Config) { c.Vault.ForbidTokenFile = true })
	request := n.request(t, "app", map[string]string{"token-file": "token"})
	_, err := n.calls.NodePublishVolume(t.Context(), request)
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "--forbid-token-file") {
		t.Errorf("got %v", err)
	}
	rig.RequireNothing(t, request.GetTargetPath())
}

// What the administrator or the pod decides: whether the token ends with the pod.
func TestRevocationAsTheVolumeSays(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	tokens := map[string]string{}
	for name, attributes := range map[string]map[string]string{
		"unset": nil, "revoke": {"revoke-on-unpublish": "true"}, "keep": {"revoke-on-unpublish": "false"},
	} {
		all := map[string]string{"token-file": "token", "template/db": connectionTemplate}
		maps.Copy(all, attributes)
		request := n.request(t, name, all)
		n.mustPublish(t, request)
		tokens[name] = mustRead(t, rig.VolumeFile(request, "token"))
		n.mustUnpublish(t, request)
	}
	rig.Eventually(t, "one token is left", func() bool { return fixture.PodTokens(t) == 1 })
	for name, want := range map[string]bool{"unset": false, "revoke": false, "keep": true} {
		if got, err := isAlive(t.Context(), fixture, tokens[name]); err != nil || got != want {
			t.Errorf("%s: the token is alive: %v, %v", name, got, err)
		}
	}
}

// nth is a further volume of the request's pod.
func (n *node) nth(t *testing.T, request *csi.NodePublishVolumeRequest, name string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	parent := filepath.Join(filepath.Dir(filepath.Dir(request.GetTargetPath())), name)
	require.NoError(t, os.MkdirAll(parent, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(parent, "vol_data.json"), []byte("{}"), 0o600))
	target := filepath.Join(parent, "mount")
	t.Cleanup(func() {
		if err := tmpfs.Remove(target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	volumeContext := maps.Clone(request.GetVolumeContext())
	maps.DeleteFunc(volumeContext, func(key, _ string) bool {
		return strings.Contains(key, "/") && !strings.HasPrefix(key, "csi.storage.k8s.io/")
	})
	maps.Copy(volumeContext, attributes)
	return &csi.NodePublishVolumeRequest{
		VolumeId: request.GetVolumeId() + "-" + name, TargetPath: target, Readonly: true,
		VolumeCapability: request.GetVolumeCapability(), VolumeContext: volumeContext, Secrets: request.GetSecrets(),
	}
}

// Each volume of a pod has a token of its own, also when the kubelet publishes them at the
// same time. It is revoked with its volume, and with no other.
func TestEachVolumeOfAPodHasAToken(t *testing.T) {
	fixture := startLastingVault(t)
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	first := n.request(t, "app", map[string]string{"template/db": connectionTemplate})
	requests := []*csi.NodePublishVolumeRequest{first}
	for i := range 3 {
		requests = append(requests, n.nth(t, first, fmt.Sprint("more-", i), map[string]string{"template/db": connectionTemplate}))
	}
	var published sync.WaitGroup
	for _, request := range requests {
		published.Go(func() {
			if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
				t.Error(err)
			}
		})
	}
	published.Wait()
	if got := fixture.requests(t, "update", "auth/jwt/login"); got != len(requests) {
		t.Errorf("%d logins for %d volumes", got, len(requests))
	}
	for i, request := range requests {
		n.mustUnpublish(t, request)
		rig.Eventually(t, "the token of the volume is revoked", func() bool { return fixture.PodTokens(t) == len(requests)-i-1 })
	}
}
