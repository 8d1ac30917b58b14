package attacks

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/test/rig"
)

// checkRestart compares two restarts, one with a volume of twice as many secrets and
// twice as many paths made from them: it takes about twice the CPU time. The health
// endpoint answers as soon as without a volume.
func checkRestart(t *testing.T, a *arena) {
	t.Helper()
	queries := scaled(250, 475)
	bare := a.restartWith(t, 0)
	half, whole := a.restartWith(t, queries), a.restartWith(t, 2*queries)
	t.Logf("a restart takes %+v without volumes, %+v with %d paths, %+v with %d", bare, half, queries, whole, 2*queries)
	const noise = 500 * time.Millisecond
	if limit := bare.cpu + 3*(half.cpu-bare.cpu) + noise; whole.cpu > limit {
		t.Errorf("twice the secrets take %s of CPU time at a restart, not %s", whole.cpu, half.cpu)
	}
	if limit := 3*bare.healthy + 2*time.Second; whole.healthy > limit {
		t.Errorf("the health endpoint answers after %s; without volumes after %s", whole.healthy, bare.healthy)
	}
}

// restarted is what a restart takes.
type restarted struct {
	healthy time.Duration // until the health endpoint is content
	cpu     time.Duration // until the volumes are served again
}

// restartWith restarts a driver that has a volume of that many paths, made from
// secrets of as many values.
func (a *arena) restartWith(t *testing.T, paths int) restarted {
	t.Helper()
	s := a.newStage(t)
	request := s.tenantRequest(t, map[string]string{"template/a": "x"})
	if paths > 0 {
		var secrets strings.Builder
		for i := range 15 * paths {
			fmt.Fprintf(&secrets, `%q,`, fmt.Sprintf("v-%d-%s", i, strings.Repeat("é", 30)))
		}
		value := "[" + strings.TrimSuffix(secrets.String(), ",") + "]"
		s.rogue.answerBelow("/v1/kv/data/big", value)
		request = s.tenantRequest(t, map[string]string{"address": s.rogue.address, "template/a": fmt.Sprintf(
			`{{ $a := secret "kv/data/big1" }}{{ $b := secret "kv/data/big2" }}{{ if $b }}{{ range $i := loop %d }}{{ with secret (printf "kv/data/app?x=%%d" $i) }}{{ end }}{{ end }}{{ end }}`, paths)})
	}
	s.MustPublish(t, request)
	s.Process.Kill(t)
	before := strings.Count(s.Process.Log.String(), rig.HealthLine)
	start := time.Now()
	s.Process = s.Process.Again(t)
	rig.Eventually(t, "the driver serves its health", func() bool { return strings.Count(s.Process.Log.String(), rig.HealthLine) > before })
	var r restarted
	rig.Eventually(t, "the driver is healthy", func() bool {
		response, err := http.Get("http://" + s.Process.Address(t, rig.HealthLine) + "/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		r.healthy = time.Since(start)
		return response.StatusCode == http.StatusOK
	})
	s.MustPublish(t, request)
	r.cpu = cpuTime(t, s.Process)
	return r
}
