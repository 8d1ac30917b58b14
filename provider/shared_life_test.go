package provider

import (
	"errors"
	"testing"
	"time"

	render "github.com/vaultmount/vaultmount/provider/template"
)

func queryOf(path string) render.Dependency { return render.Dependency{Verb: render.Read, Path: path} }

func mustShare(b *bench, r Request) string {
	b.t.Helper()
	key, shares := b.sharedKey(r)
	if !shares {
		b.t.Fatal("the volume does not share")
	}
	return key
}

// The pod goes whose service-account token was used: its token is of no use from
// then on, and another pod's is there.
func TestMeansOfAPodThatIsGoneAreReplaced(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(0, staticTemplate))
	b.open(b.replica(1, staticTemplate))
	gone := b.replica(1, staticTemplate)
	gone.Login.JWT = "old"
	b.Republish(gone)
	b.closeReplica(1)
	b.vault.change(func() { clear(b.vault.tokens); b.vault.static = "second" })
	b.pass(DefaultInterval, func() {
		if err := b.Volumes()[0].Err; err != nil {
			t.Fatalf("the volume's error is %v", err)
		}
	})
	b.requireContent(b.replica(0).VolumeID, "second")
	b.requireCount("auth/jwt/login", 2)
}

// A pod that is deleted is in the session until its volume is unmounted; Vault
// refuses its service-account token before.
func TestRefusedMeansAreReplacedByAnotherPods(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	deleted := b.replica(replicas-1, staticTemplate)
	deleted.Login.JWT = "old"
	b.Republish(deleted)
	b.vault.change(func() { clear(b.vault.tokens); b.vault.static = "second" })
	b.pass(DefaultInterval, func() {})
	b.requireReplicas("second")
	if got := b.vault.count("auth/jwt/login"); got != 3 {
		t.Errorf("%d logins, want the first, a refused one, and one that succeeds", got)
	}
	for _, status := range b.Volumes() {
		if status.Err != nil {
			t.Errorf("%s: %v", status.VolumeID, status.Err)
		}
	}
}

// All are refused, until the kubelet brings one of them a fresh token.
func TestFreshMeansOfOneReplicaAreTriedForAll(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	for i := range replicas {
		r := b.replica(i, staticTemplate)
		r.Login.JWT = "old"
		b.Republish(r)
	}
	b.vault.change(func() { clear(b.vault.tokens); b.vault.static = "second" })
	b.pass(2*time.Hour, func() {})
	if status := b.Volumes()[0]; !errors.Is(status.Err, ErrRefused) || !errors.Is(status.Shared.Err, ErrRefused) || b.Numbers().SessionsFailing != 1 {
		t.Errorf("the status is %+v, %+v", status.Err, status.Shared)
	}
	fresh := b.replica(7, staticTemplate)
	fresh.Login.JWT = "jwt-2"
	b.Republish(fresh)
	b.settle()
	b.requireReplicas("second")
	if err := b.Volumes()[0].Err; err != nil {
		t.Errorf("the volume's error is %v", err)
	}
	// From now on it is that one's to log in.
	fresh.Login.JWT = "jwt-3"
	b.Republish(fresh)
	if got := b.sessions[mustShare(b, fresh)].currentMeans().Login.JWT; got != "jwt-3" {
		t.Errorf("the session has %q", got)
	}
}

// A pod that cannot log in by itself any more keeps its last password, and gets the
// static secrets of all.
func TestFailedLoginOfOnePodLeavesSharedSecrets(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	r := b.replica(0, staticTemplate, `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`)
	b.open(r)
	b.open(b.replica(1, staticTemplate))
	r.Login.JWT = "old"
	b.Republish(r)
	b.vault.change(func() { clear(b.vault.tokens) })
	b.pass(30*time.Minute, func() {}) // until the renewal of its token
	for _, want := range []string{"second", "third"} {
		b.vault.change(func() { b.vault.static = want })
		b.pass(DefaultInterval, func() {})
		b.requireContent(r.VolumeID, want+"|app")
	}
	all := b.Volumes()
	if !errors.Is(all[0].Err, ErrRefused) || !errors.Is(all[0].Session.Err, ErrRefused) || all[0].Shared.Err != nil || all[1].Err != nil {
		t.Errorf("the volumes are %+v", all)
	}
	if got := b.vault.count("auth/jwt/login"); got > 30 {
		t.Errorf("%d logins in 40 minutes", got)
	}
	r.Login.JWT = "jwt-2"
	b.Republish(r)
	b.settle()
	if err := b.Volumes()[0].Err; err != nil {
		t.Errorf("with a fresh token at hand, the volume's error is %v", err)
	}
}

// The fresh service-account tokens of pods that do not log in change nothing.
func TestOnlyOnePodLogsIn(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	other := b.replica(3, staticTemplate)
	other.Login.JWT = "jwt-3"
	b.Republish(other)
	s := b.sessions[mustShare(b, other)]
	if got := s.currentMeans().Login.JWT; got != "jwt-1" || s.bearer != b.replica(replicas-1).VolumeID {
		t.Errorf("the session has %q of %s", got, s.bearer)
	}
	if got := b.sessions[sessionKey(other)].currentMeans().Login.JWT; got != "jwt-3" {
		t.Errorf("the pod's own session has %q", got)
	}
}

// An outage leaves the files, and is over for all when it is over.
func TestOutageOfReplicas(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.openReplicas(staticTemplate)
	b.vault.change(func() { b.vault.down = true; b.vault.static = "second" })
	b.pass(20*time.Minute, func() {})
	b.requireReplicas("first")
	if n := b.Numbers(); n.Failing != replicas {
		t.Errorf("%d of the volumes fail", n.Failing)
	}
	b.vault.change(func() { b.vault.down = false })
	b.pass(time.Minute, func() {})
	b.requireReplicas("second")
	b.requireCount("auth/jwt/login", 1)
}

// Queries of pods that have gone are not kept for ever.
func TestReadingsAreForgotten(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(0, staticTemplate))
	b.open(b.replica(1, `{{ with secret "kv/of-a-pod" }}{{ end }}`))
	all := b.sessions[mustShare(b, b.replica(0))].readings
	b.closeReplica(1)
	if all.known[queryOf("kv/static")] == nil {
		t.Error("what is in use and fresh is forgotten")
	}
	b.time.Step(DefaultInterval)
	b.settle()
	b.open(b.replica(2, "{{ 1 }}"))
	b.closeReplica(2)
	if len(all.known) != 1 || all.known[queryOf("kv/static")] == nil {
		t.Errorf("%d queries are known", len(all.known))
	}
}
