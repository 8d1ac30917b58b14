package bench

import (
	"fmt"
	"testing"
	"time"
)

// replicas are pods of one deployment on one node.
const replicas = 20

// replicasAtVault counts what the replicas of a deployment cost Vault together, each
// with a login of its own, and with a shared one.
func (a audited) replicasAtVault(b *testing.B, r *Report, size size) {
	section := Section{
		Title: "Replicas that share a login",
		Text: fmt.Sprintf("By Vault's audit log: %d pods of one service account with %d secrets each that start at once, and then %s of reads every %s, less jitter.\n"+
			"Reads per interval are those of one secret, for all pods together, over the reads that a single pod might make in that time.",
			replicas, mostSecrets, size.watch, interval),
		Head: []string{"--share-logins", "logins", "reads of a secret at the start", "reads of a secret per interval"},
	}
	for _, sharing := range []string{"none", "serviceaccount"} {
		c := a.replicas(b, sharing, size)
		section.Rows = append(section.Rows, []string{sharing, fmt.Sprint(c.logins), fmt.Sprintf("%.3g", c.start), fmt.Sprintf("%.3g", c.reads)})
		if sharing != "none" {
			r.Put(SharedLogins, float64(c.logins), Lower)
			r.Put(SharedReads, max(c.start, c.reads), Lower)
		}
	}
	r.Sections = append(r.Sections, section)
}

type replicated struct {
	logins       int
	start, reads float64 // of one secret
}

func (a audited) replicas(b *testing.B, sharing string, size size) replicated {
	n := startNode(b, a.vault, "--static-secret-render-interval="+interval.String(), "--share-logins="+sharing)
	requests := n.requests(b, "replica-"+sharing, replicas, mostSecrets)
	start := a.during(b, func() {
		atOnce(b, replicas, func(i int) error { _, err := n.publish(b.Context(), requests[i], mostSecrets); return err })
	})
	later := a.during(b, func() { time.Sleep(size.watch) }) // the measurement itself
	n.remove(b, requests)
	n.end(b)
	return replicated{
		logins: start.logins + later.logins,
		start:  float64(start.reads) / mostSecrets,
		reads:  float64(later.reads) / mostSecrets / float64(mostReads(size.watch)),
	}
}

// mostReads is how often a pod reads a secret in a time at most: the interval is
// less 15 % at its shortest, and a first read may have been due at once.
func mostReads(over time.Duration) int { return 1 + int(over/(interval*85/100)) }
