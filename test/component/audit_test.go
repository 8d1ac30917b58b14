package component

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	testingclock "k8s.io/utils/clock/testing"
)

// Ten hours of ten pods, as Vault's audit log tells them: each logs in once and
// renews its token, each secret is read as often as its volume says, and there is
// nothing else, however often the kubelet publishes.
func TestAuditLogOfTenHours(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	n := newNode(t, fixture.Server.Address, fixture.Vault)
	day := &simulation{node: n, clock: testingclock.NewFakeClock(time.Now())}
	n.clock = day.clock
	n.start(t)

	const pods = 10
	// What consul-template makes of the interval: less 5 to 15 %.
	seldom, often := time.Hour, 5*time.Minute
	for i := range pods {
		attributes := map[string]string{"secret/db": fmt.Sprintf("internal/data/database/%d", i)}
		if i%2 == 1 {
			attributes["static-secret-render-interval"] = seldom.String()
		}
		fixture.Write(t, attributes["secret/db"], map[string]any{"data": map[string]any{"password": password}})
		day.requests = append(day.requests, n.request(t, podName(i), attributes))
	}
	before := fixture.tally(t)
	day.republish(t)
	const length = 10 * time.Hour
	day.pass(t, length)
	tally := fixture.tally(t)
	maps.DeleteFunc(tally, func(what string, count int) bool { return count == before[what] })

	requireBetween(t, tally, "update auth/jwt/login", pods, pods)
	for i := range pods {
		interval := often
		if i%2 == 1 {
			interval = seldom
		}
		longest, shortest := interval*95/100+step, interval*85/100
		requireBetween(t, tally, fmt.Sprintf("read internal/data/database/%d", i), 1+int(length/longest), 1+int(length/shortest))
	}
	// A token of an hour is renewed when a quarter to a third of the hour is over.
	requireBetween(t, tally, "update auth/token/renew-self", pods*int(length/(20*time.Minute)), pods*int(length/(15*time.Minute)))
	// To tell KV version 2 from 1, once for the node.
	requireBetween(t, tally, "read sys/internal/ui/mounts/internal/data/database/0", 1, 1)
	for _, what := range slices.Sorted(maps.Keys(tally)) {
		t.Errorf("Vault was asked for more: %s, %d times", what, tally[what])
	}
}

// tally counts all requests so far by operation and path.
func (f *lastingFixture) tally(t *testing.T) map[string]int {
	t.Helper()
	requests, err := f.durable.Audit()
	require.NoError(t, err)
	counts := map[string]int{}
	for _, request := range requests {
		counts[request.Operation+" "+request.Path]++
	}
	return counts
}

// requireBetween takes what it has checked out of the tally.
func requireBetween(t *testing.T, tally map[string]int, what string, fewest, most int) {
	t.Helper()
	got := tally[what]
	t.Logf("%s: %d, of %d to %d", what, got, fewest, most)
	if got < fewest || got > most {
		t.Errorf("%s: %d times, want %d to %d", what, got, fewest, most)
	}
	delete(tally, what)
}

// simulation is the life of volumes by a clock that waits for the driver.
type simulation struct {
	*node
	clock    *testingclock.FakeClock
	requests []*csi.NodePublishVolumeRequest
}

// step is the least by which time goes on, and so the most by which the driver does
// something late.
const step = time.Second

// pass lets time go by from one time at which something is due to the next. The
// kubelet publishes every 75 s, in the middle of what it does.
func (s *simulation) pass(t *testing.T, length time.Duration) {
	t.Helper()
	const sync = 75 * time.Second
	end := s.clock.Now().Add(length)
	for republish := s.clock.Now().Add(sync); ; {
		now := earlier(republish, s.next())
		// A driver that is about to sleep sees a jump, not a small step.
		if least := s.clock.Now().Add(step); now.Before(least) {
			now = least
		}
		if now.After(end) {
			return
		}
		s.clock.SetTime(now)
		if !now.Before(republish) {
			s.republish(t)
			republish = republish.Add(sync)
		}
		s.awaitIdle(t)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *simulation) republish(t *testing.T) {
	t.Helper()
	for _, request := range s.requests {
		if _, err := s.calls.NodePublishVolume(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
}

// next is when the driver will do something.
func (s *simulation) next() time.Time {
	first := s.clock.Now().Add(24 * time.Hour)
	for _, status := range s.volumes.Statuses() {
		if !status.Next.IsZero() && status.Next.Before(first) {
			first = status.Next
		}
	}
	return first
}

// awaitIdle returns when all that was due has been done.
func (s *simulation) awaitIdle(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !s.next().After(s.clock.Now()) {
		if time.Now().After(deadline) {
			t.Fatalf("what is due at %s is never done: %+v", s.clock.Now(), s.volumes.Statuses())
		}
		time.Sleep(200 * time.Microsecond)
	}
	for _, status := range s.volumes.Statuses() {
		if status.Err != nil {
			t.Fatalf("volume %s: %v", status.VolumeID, status.Err)
		}
	}
}
