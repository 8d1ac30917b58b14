package monitoring

import (
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/rig"
)

// server is a Prometheus server that scrapes one driver every second.
type server struct {
	calls prometheus.API
}

// startPrometheus has a server evaluate rules over what an address says of itself.
func startPrometheus(t *testing.T, rules, target string) *server {
	t.Helper()
	part, err := parts.PrometheusServer(t.Context(), os.Stderr)
	require.NoError(t, err)
	directory := t.TempDir()
	write(t, filepath.Join(directory, "alerts.yaml"), rules)
	config := filepath.Join(directory, "prometheus.yaml")
	write(t, config, fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [alerts.yaml]
scrape_configs:
- job_name: vaultmount
  static_configs: [{targets: [%q]}]
`, target))
	address := freeAddress(t)
	log := &rig.Log{}
	command := exec.Command(part.Server, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(directory, "data"), "--web.listen-address="+address)
	command.Stderr = log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("log of Prometheus:\n%s", log)
		}
	})
	client, err := api.NewClient(api.Config{Address: "http://" + address})
	require.NoError(t, err)
	s := &server{calls: prometheus.NewAPI(client)}
	rig.Eventually(t, "Prometheus scrapes the driver", func() bool {
		up, err := s.query(t, `up{job="vaultmount"} == 1`)
		return err == nil && len(up) == 1
	})
	return s
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// freeAddress picks a port: Prometheus does not tell which it got.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}

// query asks for values as they are now. What is not a number is no answer.
func (s *server) query(t *testing.T, query string) (model.Vector, error) {
	t.Helper()
	answer, _, _, err := s.calls.Query(t.Context(), query, time.Now())
	if err != nil {
		return nil, err
	}
	vector, ok := answer.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("query %s: the answer is a %s", query, answer.Type())
	}
	return slices.DeleteFunc(vector, func(s *model.Sample) bool { return math.IsNaN(float64(s.Value)) }), nil
}

// firing lists the alerts that fire, in order.
func (s *server) firing(t *testing.T) []string {
	t.Helper()
	vector, err := s.query(t, `count by (alertname) (ALERTS{alertstate="firing"})`)
	require.NoError(t, err)
	names := []string{}
	for _, sample := range vector {
		names = append(names, string(sample.Metric["alertname"]))
	}
	slices.Sort(names)
	return names
}
