package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// latency takes turns, so that what else the machine does meets all alike: the
// floor, vaultmount, and now and then an agent.
func latency(b *testing.B, r *Report, n *node, size size) {
	section := Section{
		Title: "From request to readable file",
		Text: fmt.Sprintf("%d pods one after the other, each with a login of its own, %d of them with an agent as well. The floor logs in and reads over a kept\n"+
			"connection. vaultmount's time is from the kubelet's call, on a connection of its own as the kubelet makes it, until all files are read;\n"+
			"on a kept connection, it is that of the driver's part, without what a new connection costs either side.\n"+
			"The agent's is from the start of the init container's process until its files can be read; the containers start when it ends.", size.pods, size.agents),
		Head: []string{"secrets", "who", "p50", "p99", "p50 over the floor", "the agent's p50 over it"},
		Plot: "latency.svg",
	}
	plot := Plot{File: section.Plot, Title: "From request to readable file", XLabel: "ms", YLabel: "% of pods", LogX: true}
	for _, secrets := range []int{1, mostSecrets} {
		series := measureLatency(b, n, secrets, size)
		for _, who := range []string{"floor", "vaultmount", onKept, "agent", untilEnd} {
			section.Rows = append(section.Rows, []string{
				fmt.Sprint(secrets), who, Milliseconds(series[who].Median()), Milliseconds(series[who].P99()),
				fmt.Sprintf("%.2f", Over(series[who].Median(), series["floor"].Median())),
				fmt.Sprintf("%.1f", Over(series["agent"].Median(), series[who].Median())),
			})
			if who != untilEnd {
				plot.Lines = append(plot.Lines, Distribution(fmt.Sprintf("%s, %d", who, secrets), series[who]))
			}
		}
		name := fmt.Sprintf("publish, %d secret", secrets)
		if secrets > 1 {
			name += "s"
		}
		r.Put(name+": p50 over the floor's", Over(series["vaultmount"].Median(), series["floor"].Median()), Lower)
		r.Put(name+", on a kept connection: p50 over the floor's", Over(series[onKept].Median(), series["floor"].Median()), Lower)
		r.Put(name+": the agent's p50 over vaultmount's", Over(series["agent"].Median(), series["vaultmount"].Median()), Higher)
	}
	r.Sections, r.Plots = append(r.Sections, section), append(r.Plots, plot)
}

// The series besides those of the floor, of vaultmount and of the agent.
const (
	onKept   = "vaultmount, on a kept connection"
	untilEnd = "agent, until it ends"
)

func measureLatency(b *testing.B, n *node, secrets int, size size) map[string]Series {
	series := map[string]Series{}
	requests := n.requests(b, fmt.Sprintf("latency-%d", secrets), size.pods+1, secrets)
	others, kept := n.requests(b, fmt.Sprintf("kept-%d", secrets), size.pods+1, secrets), n.kept(b)
	for i, request := range requests {
		jwt := jwtOf(b, n.Vault, fmt.Sprintf("floor-%d", i))
		start := time.Now()
		require.NoError(b, n.floor.pod(b.Context(), jwt, n.paths[:secrets]))
		bare := time.Since(start)
		took, err := n.publish(b.Context(), request, secrets)
		require.NoError(b, err)
		alone, err := publishBy(b.Context(), kept, others[i], secrets)
		require.NoError(b, err)
		if i == 0 {
			continue // the first one opens connections
		}
		series["floor"], series["vaultmount"] = append(series["floor"], bare), append(series["vaultmount"], took)
		series[onKept] = append(series[onKept], alone)
	}
	for i := range size.agents {
		readable, ended := newAgent(b, n.Vault, fmt.Sprintf("agent-%d", i), n.paths[:secrets], 0).initialize(b)
		series["agent"], series[untilEnd] = append(series["agent"], readable), append(series[untilEnd], ended)
	}
	n.remove(b, append(requests, others...))
	return series
}
