package attacks

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// slowAttacks have the driver wait for the tenant's own Vault.
func slowAttacks() []attack { return []attack{slowVault(), slowRevocation()} }

// slowVault has 64 volumes read from a Vault that takes 25 s for an answer.
func slowVault() attack {
	return attack{
		name: "64 volumes are at a Vault that takes 25 s for an answer", watched: true,
		requests: func(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
			var text strings.Builder
			for i := range 3 {
				fmt.Fprintf(&text, `{{ with secret "kv/data/%d" }}{{ .Data.data.value }}{{ end }}`, i)
			}
			requests := s.tenantRequests(t, 64, func(int) map[string]string {
				return map[string]string{"address": s.rogue.address, "static-secret-render-interval": refreshInterval.String(), "template/a": text.String()}
			})
			s.publishAll(t.Context(), requests)
			s.rogue.handle(func(_ http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/v1/kv/data/") {
					return false
				}
				select {
				case <-time.After(25 * time.Second):
					return false
				case <-r.Context().Done():
					return true
				}
			})
			return requests
		},
	}
}

// slowRevocation leaves tokens of 30 pods to a Vault that takes 9 s for each.
func slowRevocation() attack {
	var revoking atomic.Int64
	return attack{
		name: "tokens of 30 pods are at a Vault that takes 9 s for a revocation",
		requests: func(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
			s.rogue.handle(func(_ http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/revoke-self") {
					return false
				}
				revoking.Add(1)
				select {
				case <-time.After(9 * time.Second):
				case <-r.Context().Done():
				}
				return false
			})
			return s.tenantRequests(t, 30, func(int) map[string]string {
				return map[string]string{"address": s.rogue.address, "template/a": `{{ with secret "kv/data/a" }}{{ end }}`}
			})
		},
		round: func(ctx context.Context, s *stage, requests []*csi.NodePublishVolumeRequest) {
			s.publishAll(ctx, requests)
			for _, request := range requests {
				_ = s.Unpublish(ctx, request)
			}
			<-ctx.Done()
		},
		hangs: func(t *testing.T, _ *stage) {
			rig.Eventually(t, "revocations hang", func() bool { return revoking.Load() > 0 })
		},
		after: requireRevocation,
	}
}

// requireRevocation wants the token of a pod of the victim revoked when the pod has
// gone, and before the tenant's Vault has answered twice.
func requireRevocation(t *testing.T, s *stage) {
	t.Helper()
	request := s.request(t, victim, map[string]string{"template/a": victimTemplate, "token-file": "token"})
	s.MustPublish(t, request)
	token, err := os.ReadFile(rig.VolumeFile(request, "token"))
	require.NoError(t, err)
	require.NoError(t, s.Unpublish(t.Context(), request))
	start := time.Now()
	client, err := s.Vault.Server.Client()
	require.NoError(t, err)
	client.SetToken(string(token))
	rig.Eventually(t, "the token of the victim's pod is revoked", func() bool {
		_, err := client.Auth().Token().LookupSelfWithContext(t.Context())
		return err != nil
	})
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the token of the victim's pod is revoked after %s", took)
	}
}
