package attacks

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// flood is a pod that is made again and again, 16 at a time, in small 6.
type flood struct {
	name        string
	annotations func() map[string]string
}

func floods() []flood {
	many := func(count int, name, value string) func() map[string]string {
		return func() map[string]string {
			all := map[string]string{}
			for i := range count {
				all[fmt.Sprintf(name, i)] = value
			}
			return all
		}
	}
	template := func(text string) func() map[string]string {
		return func() map[string]string { return map[string]string{"agent-inject-template-a": text} }
	}
	return []flood{
		{"pods with 3,200 bad templates", many(3200, "agent-inject-template-%d", "{{x}}")},
		{"pods with 2,200 bad permissions", func() map[string]string {
			all := many(2500, "agent-inject-template-%d", "x")()
			for i := range 2200 {
				all[fmt.Sprintf("agent-inject-perms-%d", i)] = "9"
			}
			return all
		}},
		{"pods with 13,000 nested blocks", template(strings.Repeat("{{if 1}}", 13_000) + strings.Repeat("{{end}}", 13_000))},
		{"pods with 250,000 parentheses", template("{{ " + strings.Repeat("(", 250_000) + " }}")},
		{"pods with an unknown function of 250 KB", template("{{ " + strings.Repeat("a", 250_000) + " }}")},
		{"pods with 3,000 unknown annotations of dashes", many(3000, strings.Repeat("-x", 28)+"%04d", "1")},
		{"pods with 100 KB of YAML aliases", template(strings.Repeat("&a [*a,*a] ", 10_000))},
	}
}

// With each flood the webhook goes on, in the memory that the chart gives it, and
// ordinary pods are made within the time that an API server waits. How soon depends on
// the processors that the flood leaves.
func TestWebhook(t *testing.T) {
	limit := memoryLimit(t, "webhook/webhook.yaml")
	control := startHook(t, limit)
	for _, flood := range floods() {
		t.Run(flood.name, func(t *testing.T) {
			h := startHook(t, limit)
			// A review takes less than a millisecond: all would be over before the flood begins.
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			paced := func() (time.Duration, error) {
				<-pace.C
				return h.admit(t)
			}
			quiet := startMany(t, scaled(10, 100), paced)
			o := &outcome{quiet: quiet.p99(), memoryBefore: h.memory.Used(t), cpuLimit: requestCPU, limit: limit}
			defer o.record(t, flood.name)
			annotations := flood.annotations()
			o.cpu = h.cpuOf(t, annotations)
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			answered := make(chan struct{}, scaled(6, 16))
			body := reviewOf(t, tenant, annotations)
			for range cap(answered) {
				group.Go(func() {
					for ctx.Err() == nil {
						_, _ = h.send(ctx, body)
						select {
						case answered <- struct{}{}:
						default:
						}
					}
				})
			}
			isOver := func() bool { return len(answered) == cap(answered) || !isAlive(h.Process) }
			during := startBeside(t, scaled(10, 100), paced, func() (time.Duration, error) { return control.admit(t) }, isOver)
			cancel()
			group.Wait()
			o.add(during)
			o.peak, o.oomKills, o.memoryAfter = h.memory.Peak(t), h.memory.OOMKills(t), h.memory.Used(t)
			o.driverEnded = !isAlive(h.Process)
			o.judge(t)
		})
	}
}
