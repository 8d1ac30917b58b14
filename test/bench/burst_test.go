package bench

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// burst starts many pods at once, as on a node after its reboot.
func burst(b *testing.B, r *Report, n *node, size size) {
	section := Section{
		Title: "Many pods at once",
		Text: "All calls at the same time, one secret each; the floor has as many clients at once. The median of the rounds counts.\n" +
			"Order is the part of all pairs of pods that were served in another order than they came in: 0 is first come, first served, 0.5 no order.",
		Head: []string{"pods", "who", "first", "p50", "last", "last over the floor's", "order"},
		Plot: "burst.svg",
	}
	plot := Plot{File: section.Plot, Title: "Many pods at once", XLabel: "ms", YLabel: "% of pods", LogX: true}
	for _, pods := range size.bursts {
		bare, mounted := measureBursts(b, n, pods, size.rounds)
		for _, each := range []struct {
			who string
			of  rounds
		}{{"floor", bare}, {"vaultmount", mounted}} {
			middle := each.of.middle()
			section.Rows = append(section.Rows, []string{
				fmt.Sprint(pods), each.who, Milliseconds(middle.Quantile(0)), Milliseconds(middle.Median()), Milliseconds(middle.Last()),
				fmt.Sprintf("%.2f", Over(middle.Last(), bare.middle().Last())), fmt.Sprintf("%.2f", Inversions(middle)),
			})
			plot.Lines = append(plot.Lines, Distribution(fmt.Sprintf("%s, %d", each.who, pods), middle))
		}
		r.Put(fmt.Sprintf("burst of %d: last file over the floor's last answer", pods), Over(mounted.middle().Last(), bare.middle().Last()), Lower)
	}
	r.Sections, r.Plots = append(r.Sections, section), append(r.Plots, plot)
}

// rounds are repetitions of one burst, each in the order of its calls.
type rounds []Series

// middle is the round whose last pod is the median of all.
func (r rounds) middle() Series {
	var lasts Series
	for _, each := range r {
		lasts = append(lasts, each.Last())
	}
	for _, each := range r {
		if each.Last() == lasts.Median() {
			return each
		}
	}
	return nil
}

func measureBursts(b *testing.B, n *node, pods, count int) (bare, mounted rounds) {
	// The first round opens connections and starts processes.
	for round := range count + 1 {
		name := fmt.Sprintf("burst-%d-%d", pods, round)
		tokens := make([]string, pods)
		for i := range tokens {
			tokens[i] = jwtOf(b, n.Vault, fmt.Sprintf("%s-%d", name, i))
		}
		requests := n.requests(b, name, pods, 1)
		floors := atOnce(b, pods, func(i int) error { return n.floor.pod(b.Context(), tokens[i], n.paths[:1]) })
		files := atOnce(b, pods, func(i int) error { _, err := n.publish(b.Context(), requests[i], 1); return err })
		n.remove(b, requests)
		if round > 0 {
			bare, mounted = append(bare, floors), append(mounted, files)
		}
	}
	return bare, mounted
}

// atOnce calls for each index and returns when each was done, from the time at
// which the first was called.
func atOnce(b *testing.B, count int, do func(i int) error) Series {
	done, failures := make(Series, count), make([]error, count)
	var group sync.WaitGroup
	start := time.Now()
	for i := range count {
		group.Go(func() {
			failures[i] = do(i)
			done[i] = time.Since(start)
		})
	}
	group.Wait()
	for _, err := range failures {
		require.NoError(b, err)
	}
	return done
}
