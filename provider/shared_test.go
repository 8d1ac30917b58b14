package provider

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// replicas of one deployment, as many as a node has of it when it is large.
const replicas = 20

func newSharingBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.end()
	b.sharing = ShareServiceAccount
	b.begin()
	return b
}

// replica is a volume of another pod of the same service account.
func (b *bench) replica(i int, templates ...string) Request {
	r := b.request(fmt.Sprintf("replica-%02d", i), templates...)
	r.PodUID = r.VolumeID
	r.Login.ServiceAccount = "default/app"
	return r
}

func (b *bench) openReplicas(templates ...string) {
	b.t.Helper()
	for i := range replicas {
		b.open(b.replica(i, templates...))
	}
}

func (b *bench) closeReplica(i int) {
	id := b.replica(i).VolumeID
	b.Close(id)
	b.files.remove(id)
}

func (b *bench) requireReplicas(want string) {
	b.t.Helper()
	for i := range replicas {
		b.requireContent(b.replica(i).VolumeID, want)
	}
}

// Twenty replicas that start at once are one login and one read; the token goes with
// the last of them, and not before.
func TestReplicasShareALogin(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	var group sync.WaitGroup
	for i := range replicas {
		group.Go(func() {
			r := b.replica(i, staticTemplate)
			contents, err := b.Open(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			b.files.put(r.VolumeID, contents)
		})
	}
	group.Wait()
	b.requireCount("auth/jwt/login", 1)
	b.requireCount("kv/static", 1)
	b.requireReplicas("first")
	if n := b.Numbers(); n.Sessions != 1 || n.SessionsShared != 1 || n.VolumesSharing != replicas {
		t.Errorf("the numbers are %+v", n)
	}
	status := b.Volumes()[0]
	if status.Shared == nil || status.Shared.Pods != replicas || status.Shared.Logins != 1 || status.Session.Logins != 0 {
		t.Errorf("the status is %+v, %+v", status, status.Shared)
	}
	for i := range replicas {
		if got := b.vault.aliveTokens(); got != 1 {
			t.Errorf("before replica %d goes, %d tokens are alive", i, got)
		}
		b.closeReplica(i)
	}
	b.vault.awaitNoToken(t)
	waitFor(t, func() bool { records, _ := b.saved.Load(""); return len(records) == 0 })
	b.requireCount("auth/token/revoke-self", 1)
}

// For hours, all replicas are one read per interval, whenever they started; and what
// changes reaches each of them within the interval.
func TestReplicasAreReadForOnce(t *testing.T) {
	t.Parallel()
	for name, apart := range map[string]time.Duration{"at once": 0, "one after the other": 37 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newSharingBench(t)
			for i := range replicas {
				b.open(b.replica(i, staticTemplate))
				b.pass(apart, func() {})
			}
			before := b.vault.count("kv/static")
			for hour := range 2 {
				b.pass(time.Hour-DefaultInterval, func() {})
				want := fmt.Sprintf("hour %d", hour)
				b.vault.change(func() { b.vault.static = want })
				b.pass(DefaultInterval, func() {})
				b.requireReplicas(want)
			}
			// As for one pod: every 5 min × 0.85 to 0.95, of 120 minutes.
			if got := b.vault.count("kv/static") - before; got < 120/5 || got > 120*100/85/5+1 {
				t.Errorf("%d reads in 2 hours", got)
			}
			b.requireCount("auth/jwt/login", 1)
		})
	}
}

// A pod does not take what is older than the least time between two reads.
func TestReplicaStartsWithWhatIsFresh(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(0, staticTemplate))
	b.time.Step(MinInterval - time.Second)
	b.open(b.replica(1, staticTemplate))
	b.requireCount("kv/static", 1)
	b.vault.change(func() { b.vault.static = "second" })
	b.time.Step(time.Second)
	b.open(b.replica(2, staticTemplate))
	b.requireCount("kv/static", 2)
	b.requireContent(b.replica(2).VolumeID, "second")
	b.requireContent(b.replica(0).VolumeID, "first")
}

// An administrator revokes the token of all: one login brings the next.
func TestRevokedTokenOfReplicasIsReplacedOnce(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	b.vault.change(func() { clear(b.vault.tokens); b.vault.static = "second" })
	b.pass(DefaultInterval, func() {})
	b.requireReplicas("second")
	b.requireCount("auth/jwt/login", 2)
}

// Replicas that are annotated to be read now are one read as well.
func TestEventOfReplicasIsOneRead(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	b.time.Step(time.Minute)
	for range 2 {
		b.vault.change(func() { b.vault.static = "annotated" })
		for i := range replicas {
			b.Republish(b.replica(i, staticTemplate))
		}
		b.settle()
		b.time.Step(20 * time.Second)
	}
	b.settle()
	b.requireReplicas("annotated")
	b.requireCount("kv/static", 2)
}

// What another pod was told before the event is not what was asked for.
func TestEventReadsWhatIsFresh(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(0, staticTemplate))
	b.time.Step(time.Minute)
	b.open(b.replica(1, staticTemplate))
	b.vault.change(func() { b.vault.static = "annotated" })
	b.time.Step(20 * time.Second)
	for range 2 {
		b.Republish(b.replica(0, staticTemplate))
	}
	b.settle()
	b.requireContent(b.replica(0).VolumeID, "annotated")
}

// A failure is nobody's answer later.
func TestFailureIsNotRemembered(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(replicas, "{{ 1 }}")) // keeps the session
	b.vault.change(func() { b.vault.static = "" })
	for i := range 3 {
		if _, err := b.Open(t.Context(), b.replica(i, staticTemplate)); !errors.Is(err, ErrNotFound) {
			t.Errorf("replica %d: %v", i, err)
		}
		b.requireCount("kv/static", i+1)
	}
	b.vault.change(func() { b.vault.static = "stored" })
	b.open(b.replica(0, staticTemplate))
	b.requireContent(b.replica(0).VolumeID, "stored")
	b.requireCount("auth/jwt/login", 1)
}
