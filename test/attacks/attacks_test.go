// Package attacks has one tenant attack the driver of a node while the pods of
// another start beside it. The driver is the real program in a control group of the
// memory that the chart gives it, Vault is real, and what a malicious Vault says
// comes from a server of the tenant's that is on the driver's allow-list. A tenant
// can make pods in its own namespace and has a role in Vault, and nothing else.
package attacks

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// isLong says whether make attacks runs the tests; without it, they are in small.
func isLong() bool { return os.Getenv("VAULTMOUNT_LONG") != "" }

// scaled is long in make attacks, and small otherwise.
func scaled[T any](small, long T) T {
	if isLong() {
		return long
	}
	return small
}

// attack is what a tenant does.
type attack struct {
	name string
	// requests are published all at once, over and over with pauses of a kubelet.
	requests func(*testing.T, *stage) []*csi.NodePublishVolumeRequest
	// round is what is done over and over in place of that.
	round func(context.Context, *stage, []*csi.NodePublishVolumeRequest)
	// hangs waits until the calls of a round hang. It is nil if they end by themselves.
	hangs func(*testing.T, *stage)
	// template is of the victim's pods; victimTemplate if it is empty.
	template string
	// watched has the victim's refreshes watched in small as well, which takes half a
	// minute: beside other attacks, so that nothing is said about the pods that start.
	watched bool
	// cpu is how much CPU time the driver may take for one of the calls; 0 if that
	// is not asked.
	cpu time.Duration
	// after looks at what the attack left.
	after func(*testing.T, *stage)
}

// With each attack: the driver goes on, in the memory that it has, and gives that
// back; all pods of the victim start, and start about as soon as without the attack;
// and their files are refreshed in time. The checks are of what a tenant may not
// reach.
func TestTenant(t *testing.T) {
	a := newArena(t)
	for _, attack := range attacks() {
		t.Run(attack.name, func(t *testing.T) {
			t.Parallel()
			a.suffer(t, attack)
		})
	}
	for _, check := range checks() {
		t.Run(check.name, func(t *testing.T) {
			t.Parallel()
			if check.tried > 0 {
				tally.AtEnd(t, check.name, check.tried)
			}
			check.run(t, a)
		})
	}
}

func attacks() []attack {
	var all []attack
	for _, of := range [][]attack{contentAttacks(), fileAttacks(), responseAttacks(), textAttacks(), queueAttacks(), slowAttacks()} {
		all = append(all, of...)
	}
	return all
}

// check is what holds on a node, whatever a tenant does.
type check struct {
	name  string
	tried int // of the table; 0 for a check that counts by itself
	run   func(*testing.T, *arena)
}

func checks() []check {
	return []check{
		{"a volume that containers can write to is refused", 1, checkWritable},
		{"redirects stay inside the allow-list", 3, checkRedirects},
		{"the API server's token stays with the driver's Vault", 2, checkAudience},
		{"errors show no secret", 8, checkErrors},
		{"a process runs templates of one namespace", 3, checkWorkers},
		{"random volumes", 0, checkRandomVolumes},
		{"a restart takes time in proportion to what there is", 3, checkRestart},
	}
}

// arena is what all attacks need.
type arena struct {
	vault *rig.Vault
	limit int64
	// control is a node that nobody attacks. Pods start there as well during an attack:
	// that takes longer where the machine is busy, by the attack or by other programs.
	control *stage
	// turn lets one attack run at a time: they compare how long pods take to start.
	turn sync.Mutex
}

func newArena(t *testing.T) *arena {
	t.Helper()
	a := &arena{vault: startVault(t), limit: memoryLimit(t, "vaultmount.yaml")}
	a.control = a.newStage(t)
	return a
}

func (a *arena) suffer(t *testing.T, attack attack) {
	t.Helper()
	s, o := a.fight(t, attack)
	defer o.record(t, attack.name)
	o.driverEnded = !s.isAlive()
	o.judge(t)
	if o.driverEnded {
		return
	}
	if attack.after != nil {
		attack.after(t, s)
	}
	s.unpublishTenant(t)
	o.memoryAfter = s.awaitMemory(t, o.memoryBefore)
	if !s.isAlive() || s.memory.OOMKills(t) > 0 {
		t.Error("the driver has ended after the attack")
	}
}

// fight runs the attack and the victim's pods beside it.
func (a *arena) fight(t *testing.T, attack attack) (*stage, *outcome) {
	t.Helper()
	if !attack.watched || isLong() {
		a.turn.Lock()
		defer a.turn.Unlock()
	}
	s := a.newStage(t)
	requests := attack.requests(t, s)
	var watch *refreshWatch
	if attack.watched || isLong() {
		watch = s.watchRefreshes(t)
	}
	template := cmp.Or(attack.template, victimTemplate)
	start := func() (time.Duration, error) { return s.startVictim(t, template) }
	quiet := startMany(t, scaled(10, 100), start)
	o := &outcome{quiet: quiet.p99(), memoryBefore: s.memory.Used(t), alone: !attack.watched || isLong()}
	if attack.cpu > 0 {
		o.cpu, o.cpuLimit = s.mostCPU(t, requests), attack.cpu
	}

	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan struct{}) // closed after the first round
	var attacker sync.WaitGroup
	attacker.Go(func() {
		once := sync.OnceFunc(func() { close(first) })
		for pause := 500 * time.Millisecond; ctx.Err() == nil && s.isAlive(); pause *= 2 {
			round(ctx, attack, s, requests)
			once()
			sleep(ctx, pause) // as a kubelet does
		}
	})
	isOver := func() bool { return isClosed(first) }
	if attack.hangs != nil {
		attack.hangs(t, s)
		isOver = func() bool { return true }
	}
	begin := time.Now()
	during := startBeside(t, scaled(20, 100), start, func() (time.Duration, error) { return a.startControl(t, template) }, func() bool {
		return isOver() && time.Since(begin) > watch.atLeast() || !s.isAlive()
	})
	o.watched, o.late = watch != nil, watch.end()
	cancel()
	attacker.Wait()
	t.Logf("the attack took %s; the tenant's publishes: %v", time.Since(begin).Round(time.Millisecond), s.answers)
	o.add(during)
	o.peak, o.limit, o.oomKills = s.memory.Peak(t), s.memory.Limit, s.memory.OOMKills(t)
	return s, o
}

// startControl starts a pod where nobody attacks. Attacks that are not alone share
// that node.
func (a *arena) startControl(t *testing.T, template string) (time.Duration, error) {
	t.Helper()
	a.control.turn.Lock()
	defer a.control.turn.Unlock()
	return a.control.startVictim(t, template)
}

func round(ctx context.Context, attack attack, s *stage, requests []*csi.NodePublishVolumeRequest) {
	if attack.round != nil {
		attack.round(ctx, s, requests)
		return
	}
	s.publishAll(ctx, requests)
}

func sleep(ctx context.Context, length time.Duration) {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func isClosed(channel <-chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

// outcome is what became of a node.
type outcome struct {
	tried, failed          int
	err                    error // the first of those that failed
	quiet, during, control time.Duration
	cpu, cpuLimit          time.Duration
	watched                bool
	late                   time.Duration // of refreshes, if they were watched
	driverEnded            bool
	oomKills               int
	alone                  bool // no other attack ran meanwhile

	memoryBefore, memoryAfter, peak, limit int64
}

func (o *outcome) add(during *victims) {
	o.tried, o.failed, o.err, o.during, o.control = during.tried, during.failed, during.err, during.p99(), during.controlP99()
}

// floor is what a pod may take to start: below it, scheduling of the test's own
// processes decides, and in make test that of others.
func floor() time.Duration { return scaled(time.Second, 250*time.Millisecond) }

// timeLimit is of the time in which 99 of 100 pods start. In make test the machine may
// be busy with anything, so that the node that nobody attacks is the measure as well.
func (o *outcome) timeLimit() time.Duration {
	quiet := o.quiet
	if !isLong() {
		quiet = max(quiet, o.control)
	}
	return max(3*quiet, floor())
}

func (o *outcome) judge(t *testing.T) {
	t.Helper()
	if o.driverEnded || o.oomKills > 0 || o.peak >= o.limit {
		t.Errorf("the program has ended: %t; %d processes of its group were killed for memory, which came to %d of %d MiB", o.driverEnded, o.oomKills, o.peak>>20, o.limit>>20)
	}
	if o.failed > 0 {
		t.Errorf("%d of %d pods of the victim do not start: %v", o.failed, o.tried, o.err)
	}
	if o.alone && o.during > o.timeLimit() {
		t.Errorf("99 of 100 pods of the victim start within %s, %s without the attack, and %s where nobody attacks; the limit is %s", o.during, o.quiet, o.control, o.timeLimit())
	}
	if o.cpu > o.cpuLimit {
		t.Errorf("a call takes %s of CPU time; the limit is %s", o.cpu, o.cpuLimit)
	}
	if o.late > refreshInterval {
		t.Errorf("a refresh of the victim's files is %s late; the limit is an interval of %s", o.late, refreshInterval)
	}
}

// record notes the line of the table. Something is lost in any case if the test fails.
func (o *outcome) record(t *testing.T, name string) {
	t.Helper()
	if t.Failed() {
		o.failed = max(o.failed, 1)
	}
	tally.Line{Item: name, Tried: o.tried, Lost: o.failed, Measured: o.String()}.Record(t)
}

func (o *outcome) String() string {
	text := fmt.Sprintf("p99 %s, quiet %s, beside %s; memory %d → %d → %d MiB", o.during.Round(time.Millisecond), o.quiet.Round(time.Millisecond), o.control.Round(time.Millisecond), o.memoryBefore>>20, o.peak>>20, cmp.Or(o.memoryAfter, o.memoryBefore)>>20)
	if o.watched {
		text += fmt.Sprintf("; refreshes at most %.1f s late", o.late.Seconds())
	}
	if o.cpuLimit > 0 {
		text += fmt.Sprintf("; at most %s of CPU time for a call", o.cpu.Round(time.Millisecond))
	}
	return text
}
