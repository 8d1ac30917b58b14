package provider

import (
	"testing"
	"time"
)

// A new process logs nobody in, and goes on to read for all at once.
func TestReplicasOutliveTheProcess(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	for range 6 {
		b.end()
		b.begin()
		b.pass(10*time.Minute, func() {})
	}
	b.requireCount("auth/jwt/login", 1)
	// A process may end between the first of the replicas that were due, and the last.
	if got := b.vault.count("kv/static"); got > 1+60*100/85/5+6 {
		t.Errorf("%d reads in an hour", got)
	}
	if got := len(b.Volumes()); got != replicas {
		t.Fatalf("%d volumes are open", got)
	}
	for i := range replicas - 1 {
		b.closeReplica(i)
	}
	b.vault.change(func() { clear(b.vault.tokens) }) // the last one's own means are known
	b.pass(DefaultInterval, func() {})
	b.requireCount("auth/jwt/login", 2)
	b.closeReplica(replicas - 1)
	b.vault.awaitNoToken(t)
	waitFor(t, func() bool { records, _ := b.saved.Load(""); return len(records) == 0 })
}

// The pod that logged in went while no driver ran.
func TestReplicasGoOnWithoutTheOneThatLoggedIn(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(0, staticTemplate))
	b.open(b.replica(1, staticTemplate))
	gone := b.replica(1, staticTemplate)
	gone.Login.JWT = "old"
	b.Republish(gone)
	b.end()
	b.files.remove(gone.VolumeID)
	b.begin()
	b.vault.change(func() { clear(b.vault.tokens) })
	b.pass(DefaultInterval, func() {})
	b.requireCount("auth/jwt/login", 2)
	if status := b.Volumes()[0]; status.Err != nil || status.Shared.Pods != 1 {
		t.Errorf("the status is %+v, %+v", status.Err, status.Shared)
	}
}

// The driver starts again with another setting: pods that shared log in by
// themselves then, and the token that they shared ends.
func TestSharingIsTurnedOff(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	b.end()
	b.sharing = ShareNothing
	b.vault.change(func() { b.vault.static = "second" })
	b.begin()
	b.pass(DefaultInterval, func() {})
	b.requireReplicas("second")
	b.requireCount("auth/jwt/login", 1+replicas)
	waitFor(t, func() bool { return b.vault.aliveTokens() == replicas })
	if n := b.Numbers(); n.Sessions != replicas || n.SessionsShared != 0 || n.VolumesSharing != 0 {
		t.Errorf("the numbers are %+v", n)
	}
}

// And with sharing on, pods that are there keep what they have.
func TestSharingIsTurnedOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.replica(0, staticTemplate))
	b.end()
	b.sharing = ShareServiceAccount
	b.begin()
	b.open(b.replica(1, staticTemplate))
	b.open(b.replica(2, staticTemplate))
	b.pass(time.Hour, func() {})
	b.requireCount("auth/jwt/login", 2)
	if all := b.Volumes(); all[0].Shared != nil || all[1].Shared == nil || all[1].Shared.Pods != 2 {
		t.Errorf("the volumes are %+v", all)
	}
}

// State that cannot be read costs the replicas one login together.
func TestUnreadableStateCostsReplicasALogin(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	b.end()
	b.saved.change(sessionPrefix, func([]byte) []byte { return nil })
	b.vault.change(func() { b.vault.static = "second" })
	b.begin()
	for i := range replicas {
		b.Republish(b.replica(i, staticTemplate))
	}
	b.pass(adoptSpread, func() {})
	b.requireReplicas("second")
	b.requireCount("auth/jwt/login", 2)
}

// The same if the shared session's record alone is lost.
func TestLostRecordOfTheSharedSession(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	r := b.replica(0, staticTemplate)
	b.open(r)
	b.end()
	b.saved.change(sessionPrefix+mustShare(b, r), func([]byte) []byte { return nil })
	b.begin()
	if got := len(b.Volumes()); got != 0 {
		t.Fatalf("%d volumes are resumed", got)
	}
	b.Republish(r)
	b.pass(adoptSpread, func() {})
	b.requireCount("auth/jwt/login", 2)
	if all := b.Volumes(); len(all) != 1 || all[0].Shared == nil || all[0].Err != nil {
		t.Errorf("the volumes are %+v", all)
	}
}
