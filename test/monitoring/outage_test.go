package monitoring

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// faster is how much the rules are scaled: half an hour takes a minute. Windows stay
// longer than the 5 seconds between two attempts of a circuit that is open.
const faster = 30

// A real Prometheus watches a real driver whose real Vault goes away: what fires is
// what the table of failures says, no more and no less, and is over afterwards.
func TestOutageFiresWhatTheTableSays(t *testing.T) {
	vault := vaultserver.DurableForTest(t)
	n := startNode(t, vault)
	watch := startPrometheus(t, scaled(t, readFile(t, alertsFile), faster), n.Process.Address(t, rig.HealthLine))
	n.play(t)
	requirePanels(t, watch)
	n.requireMetrics(t)
	requireFiring(t, watch, "while all is well", nil)

	failures := readFailures(t)
	for _, outage := range []struct {
		row        string
		begin, end func(context.Context) error
	}{
		{"Vault unreachable", func(context.Context) error { vault.Kill(); return nil }, vault.Restart},
		{"Vault sealed", vault.Seal, vault.Unseal},
	} {
		require.NoError(t, outage.begin(t.Context()))
		n.endOne(t)
		requireFiring(t, watch, outage.row, failures[outage.row].alerts)
		require.NoError(t, outage.end(t.Context()))
		requireFiring(t, watch, "after: "+outage.row, nil)
	}
}

// requireFiring waits for the alerts. None of them takes longer than the wait of the
// slowest, so that others would be there by then.
func requireFiring(t *testing.T, watch *server, when string, want []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		got := watch.firing(t)
		if slices.Equal(got, want) {
			t.Logf("%s: %q fire", when, got)
			return
		}
		for _, alert := range got {
			if want != nil && !slices.Contains(want, alert) {
				t.Fatalf("%s: %s fires, which is not in the table: %q", when, alert, want)
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %q fire, want %q", when, got, want)
		case <-tick.C:
		}
	}
}

// node is a driver with pods.
type node struct {
	*rig.Node
	held []*csi.NodePublishVolumeRequest
}

func startNode(t *testing.T, vault *vaultserver.Durable) *node {
	t.Helper()
	n := &node{Node: rig.StartNode(t, rig.SetUpVault(t, vault.Server), vault.Address, "--static-secret-render-interval=10s", "--volume-capacity=128Mi")}
	n.CallTimeout = 2 * time.Minute // as a kubelet waits: pods that do not start are counted by why
	n.Register(t)
	for i := range 6 {
		request := n.request(t, fmt.Sprintf("held-%d", i))
		n.MustPublish(t, request)
		n.held = append(n.held, request)
	}
	return n
}

func (n *node) request(t *testing.T, pod string) *csi.NodePublishVolumeRequest {
	t.Helper()
	// A function makes it a program, so that a process runs it.
	template := fmt.Sprintf("{{ with secret %q }}{{ toUpper .Data.data.username }}{{ end }}", rig.ConfigPath)
	return n.Request(t, n.Vault, pod, map[string]string{"template/config": template})
}

// play has pods come and go until the test ends, also while they cannot start.
func (n *node) play(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request := n.request(t, "guest")
	var playing sync.WaitGroup
	playing.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if n.Publish(ctx, request) == nil {
				_ = n.Unpublish(ctx, request)
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		playing.Wait()
	})
}

// requireMetrics compares what the program says with what the documents are held to.
// Events are counted once there is one, and here there is no API server.
func (n *node) requireMetrics(t *testing.T) {
	t.Helper()
	got, want := families(t, n.Process.Metrics(t)), driverMetrics(t)
	delete(want, "vaultmount_events_total")
	if !maps.Equal(got, want) {
		t.Errorf("the program has the metrics\n%v, want\n%v", got, want)
	}
}

// endOne ends a pod whose token Vault cannot revoke now.
func (n *node) endOne(t *testing.T) {
	t.Helper()
	n.MustUnpublish(t, n.held[0])
	n.held = n.held[1:]
}

// requirePanels waits until each query of each panel has an answer, and shows them.
func requirePanels(t *testing.T, watch *server) {
	t.Helper()
	asked := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "20s")
	answers := map[string]string{}
	var order []string
	for _, panel := range readDashboard(t).queried() {
		for _, target := range panel.Targets {
			name := panel.Title + "\t" + target.RefID
			order = append(order, name)
			query := asked.Replace(target.Expr)
			rig.Eventually(t, "panel "+name+" has data: "+query, func() bool {
				vector, err := watch.query(t, query)
				require.NoError(t, err)
				values := map[string]bool{}
				for _, sample := range vector {
					delete(sample.Metric, "__name__")
					delete(sample.Metric, "instance")
					delete(sample.Metric, "job")
					values[strings.TrimSpace(fmt.Sprintf("%s %.4g", strings.Trim(sample.Metric.String(), "{}"), float64(sample.Value)))] = true
				}
				answers[name] = strings.Join(slices.Sorted(maps.Keys(values)), "; ")
				return len(vector) > 0
			})
		}
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, name := range order {
		fmt.Fprintf(w, "%s\t%s\n", name, answers[name])
	}
	require.NoError(t, w.Flush())
	t.Logf("what the panels show:\n%s", table.String())
}
