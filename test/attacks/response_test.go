package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// responseAttacks are about what Vault answers.
func responseAttacks() []attack {
	return []attack{
		{name: "Vault is asked to answer 503", requests: circuitRequests},
		{name: "a template reads a secret of 1 MB under 900 names", requests: bigSecretRequests},
		{name: "a Vault answers with 4 MiB of empty lists, 8 times", requests: listRequests},
		{name: "30 volumes keep 5 MB of secrets each", requests: retainedRequests, after: requireRestart},
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
	s.vault.Write(t, "internal/data/tenant/big", map[string]any{"data": map[string]any{"value": strings.Repeat("x", 1_000_000)}})
	const text = `{{ range $i := loop 900 }}{{ with secret (printf "internal/data/tenant/big?x=%d" $i) }}{{ end }}{{ end }}`
	return s.tenantRequests(t, 1, func(int) map[string]string { return map[string]string{"template/a": text} })
}

func listRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	lists := "[" + strings.Repeat("[],", 1_390_000) + "[]]"
	s.rogue.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/kv/data/big") {
			return false
		}
		answerSecret(w, lists)
		return true
	})
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
	s.rogue.handle(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/v1/kv/data/big") {
			return false
		}
		answerSecret(w, value)
		return true
	})
	var text strings.Builder
	for i := range 5 {
		fmt.Fprintf(&text, `{{ with secret "kv/data/big?x=%d" }}{{ end }}`, i)
	}
	return s.tenantRequests(t, 30, func(int) map[string]string {
		return map[string]string{"address": s.rogue.address, "template/a": text.String(), "size": "8Ki"}
	})
}

// requireRestart kills the driver. With the tenant's volumes still there, the next one
// must serve the victim, and know the volumes that the victim had.
func requireRestart(t *testing.T, s *stage) {
	t.Helper()
	request := s.request(t, victim, map[string]string{"template/a": victimTemplate})
	s.mustPublish(t, request)
	s.restart(t)
	s.mustPublish(t, request)
	if err := s.unpublish(t.Context(), request); err != nil {
		t.Error(err)
	}
	startMany(t, 5, func() (time.Duration, error) { return s.startVictim(t, victimTemplate) })
}
