package attacks

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// responseAttacks are about what Vault answers.
func responseAttacks() []attack {
	return []attack{
		{name: "Vault is asked to answer 503", requests: circuitRequests},
		{name: "a template reads a secret of 1 MB under 900 names", requests: bigSecretRequests},
		{name: "a Vault answers with 4 MiB of empty lists, 8 times", requests: listRequests},
		{name: "30 volumes keep 5 MB of secrets each", requests: retainedRequests, after: requireRestart},
		{name: "30 volumes keep 90,000 empty objects each", requests: objectRequests, after: requireRestart},
		{name: "a Vault answers with JSON that is costly to read", requests: costlyRequests},
		trickle(),
		{name: "a Vault gives leases of a second", requests: leaseRequests},
	}
}

// circuitRequests ask a path of Vault that answers any status that the caller names,
// to anybody.
func circuitRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	var text strings.Builder
	for i := range 8 {
		fmt.Fprintf(&text, `{{ with secret "sys/health?activecode=503&x=%d" }}x{{ end }}`, i)
	}
	return s.tenantRequests(t, 24, func(int) map[string]string {
		return map[string]string{"template/a": text.String(), "client-max-retries": "0"}
	})
}

func bigSecretRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	s.Vault.Write(t, "internal/data/tenant/big", map[string]any{"data": map[string]any{"value": strings.Repeat("x", 1_000_000)}})
	const text = `{{ range $i := loop 900 }}{{ with secret (printf "internal/data/tenant/big?x=%d" $i) }}{{ end }}{{ end }}`
	return s.tenantRequests(t, 1, func(int) map[string]string { return map[string]string{"template/a": text} })
}

func listRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	lists := "[" + strings.Repeat("[],", 1_390_000) + "[]]"
	s.rogue.answerBelow("/v1/kv/data/big", lists)
	const text = `{{ range $i := loop 8 }}{{ with secret (printf "kv/data/big?x=%d" $i) }}{{ end }}{{ end }}`
	return s.tenantRequests(t, 1, func(int) map[string]string {
		return map[string]string{"address": s.rogue.address, "template/a": text}
	})
}

// retainedRequests show nothing of the secrets that they read, which the driver keeps
// for the next refresh, and saves.
func retainedRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	value := `"` + strings.Repeat("x", 1_000_000) + `"`
	s.rogue.answerBelow("/v1/kv/data/big", value)
	var text strings.Builder
	for i := range 5 {
		fmt.Fprintf(&text, `{{ with secret "kv/data/big?x=%d" }}{{ end }}`, i)
	}
	return s.tenantRequests(t, 30, func(int) map[string]string {
		return map[string]string{"address": s.rogue.address, "template/a": text.String(), "size": "8Ki"}
	})
}

// costlyRequests are answered with 4 MiB of another kind each: nested, of one number, of
// one key over and over, of keys that only differ in their spelling, and of zeros that
// are compressed.
func costlyRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	const size = 4 << 20
	var keys strings.Builder
	for i := range 250_000 {
		fmt.Fprintf(&keys, `"k%07x":0,`, i)
	}
	values := []string{
		strings.Repeat("[", size/2) + strings.Repeat("]", size/2-100),
		strings.Repeat("7", size-100),
		`{` + strings.Repeat(`"\u0061":{},`, 300_000) + `"a":0}`,
		`{` + keys.String() + `"a":0}`,
		`"` + strings.Repeat(`\ud800`, size/6-100) + `"`,
	}
	var zeros bytes.Buffer
	compressed := gzip.NewWriter(&zeros)
	_, err := compressed.Write(make([]byte, 8*size))
	require.NoError(t, errors.Join(err, compressed.Close()))
	s.rogue.handle(func(w http.ResponseWriter, r *http.Request) bool {
		number := 0
		if _, err := fmt.Sscanf(r.URL.Path, "/v1/kv/data/costly-%d", &number); err != nil {
			return false
		}
		if number < len(values) {
			answerSecret(w, values[number])
			return true
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(zeros.Bytes()) // the driver may have gone
		return true
	})
	return s.tenantRequests(t, scaled(2, 12)*(len(values)+1), func(pod int) map[string]string {
		return map[string]string{
			"address": s.rogue.address, "client-max-retries": "0", "size": "8Mi",
			"template/a": fmt.Sprintf(`{{ with secret "kv/data/costly-%d" }}{{ .Data | toJSON }}{{ end }}`, pod%(len(values)+1)),
		}
	})
}

// trickle has answers hold, for as long as a call lasts, what the node reads at one time.
func trickle() attack {
	var open atomic.Int64
	return attack{
		name: "a Vault sends 64 answers of 4 MiB a byte at a time",
		requests: func(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
			s.rogue.handleBelow("/v1/kv/data/slow", func(w http.ResponseWriter, r *http.Request) {
				open.Add(1)
				w.Header().Set("Content-Length", strconv.Itoa(4<<20))
				for r.Context().Err() == nil {
					if _, err := w.Write([]byte(" ")); err != nil {
						break
					}
					w.(http.Flusher).Flush()
					sleep(r.Context(), 100*time.Millisecond)
				}
			})
			return s.tenantRequests(t, 64, func(pod int) map[string]string {
				return map[string]string{
					"address": s.rogue.address, "client-max-retries": "0", "client-timeout": "100s",
					"template/a": fmt.Sprintf(`{{ with secret "kv/data/slow-%d" }}x{{ end }}`, pod),
				}
			})
		},
		hangs: func(t *testing.T, _ *stage) {
			rig.Eventually(t, "answers hang", func() bool { return open.Load() >= 4 })
		},
	}
}

// leaseRequests have tokens and secrets that end as soon as they are there.
func leaseRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	s.rogue.handle(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, "/login"), strings.HasSuffix(r.URL.Path, "/renew-self"):
			answer(w, http.StatusOK, map[string]any{"auth": map[string]any{"client_token": "hvs." + rand.Text(), "accessor": rand.Text(), "lease_duration": 1, "renewable": true}})
		case strings.HasPrefix(r.URL.Path, "/v1/database/"), strings.HasSuffix(r.URL.Path, "/leases/renew"):
			answer(w, http.StatusOK, map[string]any{"lease_id": rand.Text(), "lease_duration": 1, "renewable": true, "data": map[string]any{"password": rand.Text()}})
		default:
			return false
		}
		return true
	})
	requests := s.tenantRequests(t, 40, func(int) map[string]string {
		return map[string]string{"address": s.rogue.address, "template/a": `{{ with secret "database/creds/a" }}{{ .Data.password }}{{ end }}`}
	})
	s.publishAll(t.Context(), requests)
	return requests
}

// objectRequests keep values that take little of an answer and much of memory.
func objectRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	objects := "[" + strings.Repeat("{},", 90_000) + "{}]"
	s.rogue.answerBelow("/v1/kv/data/objects", objects)
	return s.tenantRequests(t, 30, func(int) map[string]string {
		return map[string]string{"address": s.rogue.address, "template/a": `{{ with secret "kv/data/objects" }}x{{ end }}`, "size": "8Ki"}
	})
}

// requireRestart kills the driver. With the tenant's volumes still there, the next one
// must serve the victim, and know the volumes that the victim had.
func requireRestart(t *testing.T, s *stage) {
	t.Helper()
	request := s.request(t, victim, map[string]string{"template/a": victimTemplate})
	s.MustPublish(t, request)
	s.restart(t)
	s.MustPublish(t, request)
	if err := s.Unpublish(t.Context(), request); err != nil {
		t.Error(err)
	}
	startMany(t, 5, func() (time.Duration, error) { return s.startVictim(t, victimTemplate) })
}

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
