package bench

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// interval of static secrets while requests are counted. The agent's and
// vaultmount's jitter is the same.
const interval = 10 * time.Second

// audited counts what Vault is asked, by its own audit log.
type audited struct {
	vault  *rig.Vault
	server *vaultserver.Durable
}

// asked is what Vault was asked in some time; reads are those of what a secret may be.
type asked struct{ all, logins, reads int }

// during counts the requests while something runs. Those of the benchmark itself,
// with the root token, are made before and after.
func (a audited) during(b testing.TB, do func()) asked {
	b.Helper()
	before, err := a.server.Audit()
	if err != nil {
		b.Fatal(err)
	}
	do()
	after, err := a.server.Audit()
	if err != nil {
		b.Fatal(err)
	}
	count := asked{all: len(after) - len(before)}
	for _, request := range after[len(before):] {
		switch {
		case strings.HasSuffix(request.Path, "/login"):
			count.logins++
		case request.Operation == "read" && strings.HasPrefix(request.Path, secretPrefix):
			count.reads++
		}
	}
	return count
}

// requestsToVault counts what a pod costs Vault.
func requestsToVault(b *testing.B, r *Report, size size) {
	server := vaultserver.DurableForTest(b)
	a := audited{rig.SetUpVault(b, server.Server), server}
	section := Section{
		Title: "Requests to Vault",
		Text: fmt.Sprintf("By Vault's audit log. The hour is made of %s with reads every %s; a read every 5 minutes, less jitter, is what both do unless told\n"+
			"otherwise. The agent's start is of the init container and of the sidecar. A restart of the driver is one of all its volumes; the agent's\n"+
			"nearest is one of the sidecar.", size.watch, interval),
		Head: []string{"secrets", "who", "start", "logins of it", "an hour of static secrets", "restart"},
	}
	for _, secrets := range []int{1, mostSecrets} {
		mounted, agent := a.mounted(b, secrets, size), a.agent(b, secrets, size)
		for _, each := range []counted{mounted, agent} {
			section.Rows = append(section.Rows, []string{
				fmt.Sprint(secrets), each.who, fmt.Sprint(each.start), fmt.Sprint(each.logins), fmt.Sprintf("%.0f", each.hour), fmt.Sprint(each.restart),
			})
		}
		name := fmt.Sprintf("requests to Vault of a pod's start, %d secrets: the agent's over vaultmount's", secrets)
		r.Put(name, float64(agent.start)/float64(mounted.start), Higher)
		if secrets == mostSecrets {
			r.Put(StartRequests, float64(mounted.start-1-secrets), Lower)
		}
	}
	r.Sections = append(r.Sections, section)
	a.replicasAtVault(b, r, size)
}

type counted struct {
	who                    string
	start, logins, restart int
	hour                   float64
}

func (a audited) mounted(b *testing.B, secrets int, size size) counted {
	n := startNode(b, a.vault, "--static-secret-render-interval="+interval.String())
	// The probe of a mount is made once for a node.
	first := n.requests(b, fmt.Sprintf("first-%d", secrets), 1, 1)
	inParallel(b, 1, 1, func(i int) error { _, err := n.publish(b.Context(), first[i], 1); return err })
	n.remove(b, first)
	c := counted{who: "vaultmount"}
	requests := n.requests(b, fmt.Sprintf("audited-%d", secrets), 1, secrets)
	start := a.during(b, func() {
		if _, err := n.publish(b.Context(), requests[0], secrets); err != nil {
			b.Fatal(err)
		}
	})
	later := a.during(b, func() { time.Sleep(size.watch) }) // the measurement itself
	c.logins, c.start, c.hour = start.logins, start.all, perHour(later.all, size.watch)
	restart := a.during(b, func() {
		n.Process.Kill(b)
		resumed := strings.Count(n.Process.Log.String(), `"Volumes restored"`)
		n.Process = n.Process.Again(b)
		rig.Eventually(b, "the next process is active", func() bool {
			return strings.Count(n.Process.Log.String(), `"Volumes restored"`) > resumed
		})
		if _, err := n.publish(b.Context(), requests[0], secrets); err != nil {
			b.Fatal(err)
		}
	})
	c.restart = restart.all
	n.remove(b, requests)
	n.end(b)
	return c
}

func (a audited) agent(b *testing.B, secrets int, size size) counted {
	n := &node{Node: &rig.Node{Vault: a.vault}}
	for i := range secrets {
		n.paths = append(n.paths, secretPath(i))
	}
	c := counted{who: "agent"}
	pod := newAgent(b, a.vault, fmt.Sprintf("audited-agent-%d", secrets), n.paths, interval)
	var sidecar *exec.Cmd
	start := a.during(b, func() {
		pod.initialize(b)
		sidecar = pod.sidecar(b)
		pod.awaitSidecar(b)
	})
	later := a.during(b, func() { time.Sleep(size.watch) }) // the measurement itself
	end(sidecar)                                            // it would be counted with what comes next
	c.logins, c.start, c.hour = start.logins, start.all, perHour(later.all, size.watch)
	again := newAgent(b, a.vault, fmt.Sprintf("restarted-agent-%d", secrets), n.paths, interval)
	restart := a.during(b, func() {
		sidecar = again.sidecar(b)
		again.awaitFiles(b)
	})
	c.restart = restart.all
	end(sidecar)
	return c
}

// perHour scales a count to an hour at the usual interval of five minutes.
func perHour(count int, over time.Duration) float64 {
	return float64(count) / over.Hours() * (interval.Seconds() / (5 * time.Minute).Seconds())
}
