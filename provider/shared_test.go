package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// replicas of one deployment, as many as a node has of it when it is large.
const replicas = 20

func newSharingHarness(t *testing.T) *harness {
	t.Helper()
	h := newHarness(t)
	h.end()
	h.sharing = ShareServiceAccount
	h.begin()
	return h
}

// replica is a volume of another pod of the same service account.
func (h *harness) replica(i int, templates ...string) Request {
	r := h.request(fmt.Sprintf("replica-%02d", i), templates...)
	r.Login.ServiceAccount = "default/app"
	return r
}

func (h *harness) openReplicas(templates ...string) {
	h.t.Helper()
	for i := range replicas {
		h.publish(h.replica(i, templates...))
	}
}

func (h *harness) closeReplica(i int) {
	id := h.replica(i).VolumeID
	h.close(id)
}

func (h *harness) requireReplicas(want string) {
	h.t.Helper()
	for i := range replicas {
		h.requireContent(h.replica(i).VolumeID, want)
	}
}

// Twenty replicas that start at once are one login and one read; the token goes with
// the last of them, and not before.
func TestReplicasShareALogin(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	var group sync.WaitGroup
	for i := range replicas {
		group.Go(func() {
			if _, err := h.tryPublish(t.Context(), h.replica(i, staticTemplate)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	h.requireCount("auth/jwt/login", 1)
	h.requireCount("kv/static", 1)
	h.requireReplicas("first")
	if n := h.stats(); n.Sessions != 1 || n.SessionsShared != 1 || n.VolumesSharing != replicas {
		t.Errorf("the numbers are %+v", n)
	}
	status := h.statuses()[0]
	if status.Shared == nil || status.Shared.Pods != replicas || status.Shared.Logins != 1 || status.Session.Logins != 0 {
		t.Errorf("the status is %+v, %+v", status, status.Shared)
	}
	for i := range replicas {
		if got := h.vault.aliveTokens(); got != 1 {
			t.Errorf("before replica %d goes, %d tokens are alive", i, got)
		}
		h.closeReplica(i)
	}
	h.vault.awaitNoToken(t)
	h.awaitNoRecord()
	h.requireCount("auth/token/revoke-self", 1)
}

// For hours, all replicas are one read per interval, whenever they started; and what
// changes reaches each of them within the interval.
func TestReplicasAreReadForOnce(t *testing.T) {
	t.Parallel()
	for name, apart := range map[string]time.Duration{"at once": 0, "one after the other": 37 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newSharingHarness(t)
			for i := range replicas {
				h.publish(h.replica(i, staticTemplate))
				h.advance(apart, func() {})
			}
			before := h.vault.count("kv/static")
			for hour := range 2 {
				h.advance(time.Hour-DefaultInterval, func() {})
				want := fmt.Sprintf("hour %d", hour)
				h.vault.change(func() { h.vault.static = want })
				h.advance(DefaultInterval, func() {})
				h.requireReplicas(want)
			}
			// As for one pod: every 5 min × 0.85 to 0.95, of 120 minutes.
			if got := h.vault.count("kv/static") - before; got < 120/5 || got > 120*100/85/5+1 {
				t.Errorf("%d reads in 2 hours", got)
			}
			h.requireCount("auth/jwt/login", 1)
		})
	}
}

// A pod does not take what is older than the least time between two reads.
func TestReplicaStartsWithWhatIsFresh(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(0, staticTemplate))
	h.time.Step(MinInterval - time.Second)
	h.publish(h.replica(1, staticTemplate))
	h.requireCount("kv/static", 1)
	h.vault.change(func() { h.vault.static = "second" })
	h.time.Step(time.Second)
	h.publish(h.replica(2, staticTemplate))
	h.requireCount("kv/static", 2)
	h.requireContent(h.replica(2).VolumeID, "second")
	h.requireContent(h.replica(0).VolumeID, "first")
}

// An administrator revokes the token of all: one login brings the next.
func TestRevokedTokenOfReplicasIsReplacedOnce(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	h.vault.change(func() { clear(h.vault.tokens); h.vault.static = "second" })
	h.advance(DefaultInterval, func() {})
	h.requireReplicas("second")
	h.requireCount("auth/jwt/login", 2)
}

// A refresh that somebody asks for reads once for all replicas.
func TestForcedRefreshOfReplicasIsOneRead(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	h.time.Step(20 * time.Second)
	h.vault.change(func() { h.vault.static = "second" })
	for i := range replicas {
		h.refresh(h.replica(i).VolumeID)
	}
	h.waitIdle()
	h.requireReplicas("second")
	h.requireCount("kv/static", 2)
}

// What another pod has read before is not what was asked for.
func TestForcedRefreshReadsWhatIsFresh(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(0, staticTemplate))
	h.time.Step(20 * time.Second)
	h.publish(h.replica(1, staticTemplate))
	h.vault.change(func() { h.vault.static = "second" })
	h.time.Step(time.Second)
	h.refresh(h.replica(0).VolumeID)
	h.waitIdle()
	h.requireContent(h.replica(0).VolumeID, "second")
}

// A failure is nobody's answer later.
func TestFailureIsNotRemembered(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(replicas, "{{ 1 }}")) // keeps the session
	h.vault.change(func() { h.vault.static = "" })
	for i := range 3 {
		if _, err := h.tryPublish(t.Context(), h.replica(i, staticTemplate)); !errors.Is(err, ErrNotFound) {
			t.Errorf("replica %d: %v", i, err)
		}
		h.requireCount("kv/static", i+1)
	}
	h.vault.change(func() { h.vault.static = "stored" })
	h.publish(h.replica(0, staticTemplate))
	h.requireContent(h.replica(0).VolumeID, "stored")
	h.requireCount("auth/jwt/login", 1)
}

// sharedBy is the session that a volume shares.
func (h *harness) sharedBy(r Request) *sharedSession { return h.mount(r.VolumeID).getVolume().shared }

// The pod goes whose service-account token was used: its token is of no use from
// then on, and another pod's is there.
func TestCredentialsOfAPodThatIsGoneAreReplaced(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(0, staticTemplate))
	h.publish(h.replica(1, staticTemplate))
	gone := h.replica(1, staticTemplate)
	gone.Login.JWT = "old"
	h.republish(gone)
	h.closeReplica(1)
	h.vault.change(func() { clear(h.vault.tokens); h.vault.static = "second" })
	h.advance(DefaultInterval, func() {
		if err := h.statuses()[0].Err; err != nil {
			t.Fatalf("the volume's error is %v", err)
		}
	})
	h.requireContent(h.replica(0).VolumeID, "second")
	h.requireCount("auth/jwt/login", 2)
}

// A pod that is deleted is in the session until its volume is unmounted; Vault
// refuses its service-account token before.
func TestRefusedCredentialsAreReplacedByAnotherPods(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	deleted := h.replica(replicas-1, staticTemplate)
	deleted.Login.JWT = "old"
	h.republish(deleted)
	h.vault.change(func() { clear(h.vault.tokens); h.vault.static = "second" })
	h.advance(DefaultInterval, func() {})
	h.requireReplicas("second")
	if got := h.vault.count("auth/jwt/login"); got > 3 {
		t.Errorf("%d logins, want the first, perhaps a refused one, and one that succeeds", got)
	}
	for _, status := range h.statuses() {
		if status.Err != nil {
			t.Errorf("%s: %v", status.VolumeID, status.Err)
		}
	}
}

// All are refused, until the kubelet brings one of them a fresh token.
func TestFreshCredentialsOfOneReplicaAreTriedForAll(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	for i := range replicas {
		r := h.replica(i, staticTemplate)
		r.Login.JWT = "old"
		h.republish(r)
	}
	h.vault.change(func() { clear(h.vault.tokens); h.vault.static = "second" })
	h.advance(2*time.Hour, func() {})
	if status := h.statuses()[0]; !errors.Is(status.Err, ErrRefused) || !errors.Is(status.Shared.Err, ErrRefused) || h.stats().SessionsFailing != 1 {
		t.Errorf("the status is %+v, %+v", status.Err, status.Shared)
	}
	fresh := h.replica(7, staticTemplate)
	fresh.Login.JWT = "jwt-2"
	h.republish(fresh)
	h.waitIdle()
	h.requireReplicas("second")
	if err := h.statuses()[0].Err; err != nil {
		t.Errorf("the volume's error is %v", err)
	}
}

// A pod that cannot log in by itself any more keeps its last password, and gets the
// static secrets of all.
func TestFailedLoginOfOnePodLeavesSharedSecrets(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	r := h.replica(0, staticTemplate, `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`)
	h.publish(r)
	h.publish(h.replica(1, staticTemplate))
	r.Login.JWT = "old"
	h.republish(r)
	h.vault.change(func() { clear(h.vault.tokens) })
	h.advance(30*time.Minute, func() {}) // until the renewal of its token
	for _, want := range []string{"second", "third"} {
		h.vault.change(func() { h.vault.static = want })
		h.advance(DefaultInterval, func() {})
		h.requireContent(r.VolumeID, want+"|app")
	}
	all := h.statuses()
	if !errors.Is(all[0].Err, ErrRefused) || !errors.Is(all[0].Session.Err, ErrRefused) || all[0].Shared.Err != nil || all[1].Err != nil {
		t.Errorf("the volumes are %+v", all)
	}
	if got := h.vault.count("auth/jwt/login"); got > 30 {
		t.Errorf("%d logins in 40 minutes", got)
	}
	r.Login.JWT = "jwt-2"
	h.republish(r)
	h.waitIdle()
	if err := h.statuses()[0].Err; err != nil {
		t.Errorf("with a fresh token at hand, the volume's error is %v", err)
	}
}

// An outage leaves the files, and is over for all when it is over.
func TestOutageOfReplicas(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	h.vault.change(func() { h.vault.down = true; h.vault.static = "second" })
	h.advance(20*time.Minute, func() {})
	h.requireReplicas("first")
	if n := h.stats(); n.Failing != replicas {
		t.Errorf("%d of the volumes fail", n.Failing)
	}
	h.vault.change(func() { h.vault.down = false })
	h.advance(time.Minute, func() {})
	h.requireReplicas("second")
	h.requireCount("auth/jwt/login", 1)
}

// Values that nobody reads any more are not kept.
func TestCacheEvicts(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(0, staticTemplate))
	h.publish(h.replica(1, `{{ with secret "kv/of-a-pod" }}{{ end }}`))
	cache := &h.sharedBy(h.replica(0)).cache
	require := func(want ...string) {
		t.Helper()
		cache.mutex.Lock()
		defer cache.mutex.Unlock()
		if len(cache.entries) != len(want) {
			t.Errorf("%d values are kept, want %v", len(cache.entries), want)
		}
		for _, path := range want {
			if cache.entries[keyOf(path)] == nil {
				t.Errorf("%s is not kept", path)
			}
		}
	}
	h.closeReplica(1)
	require("kv/static", "kv/of-a-pod")
	h.advance(2*DefaultInterval, func() {})
	require("kv/static")
}

// Over the limits of one volume, the cache is emptied.
func TestCacheIsLimited(t *testing.T) {
	t.Parallel()
	c := kvCache{entries: map[template.Dependency]*kvEntry{}}
	big := vault.Size{Bytes: limits.VolumeResponseBytes.Max() / 2}
	for i := range 4 {
		c.put(keyOf(fmt.Sprint(i)), &kvEntry{fetchedAt: boot, size: big}, DefaultInterval)
		if c.size.Bytes > limits.VolumeResponseBytes.Max()+big.Bytes {
			t.Errorf("it keeps %d bytes", c.size.Bytes)
		}
	}
	c = kvCache{entries: map[template.Dependency]*kvEntry{}}
	for i := range 2 * limits.Dependencies.Max() {
		c.put(keyOf(fmt.Sprint(i)), &kvEntry{fetchedAt: boot}, DefaultInterval)
		if len(c.entries) > limits.Dependencies.Max() {
			t.Fatalf("it keeps %d values", len(c.entries))
		}
	}
}

// What Vault makes for one pod is under that pod's own token, and goes with it.
func TestLeasedSecretsHaveALoginOfTheirOwn(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		output FileSpec
		path   string
	}{
		"credentials": {FileSpec{Template: Template{Name: "a", Text: databaseTemplate}}, "database/creds/app"},
		"a rotated password": {FileSpec{Template: Template{Name: "a",
			Text: `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`}}, "database/static-creds/app"},
		"a write": {FileSpec{Template: Template{Name: "a",
			Text: `{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`}}, "transit/encrypt/app"},
		"a lease of a KV": {FileSpec{Template: Template{Name: "a", Text: `{{ with secret "kv/leased" }}{{ .Data.value }}{{ end }}`}}, ""},
		"the token":       {FileSpec{Template: Template{Name: "a"}, Token: true}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newSharingHarness(t)
			h.vault.change(func() { h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour })
			for i := range 2 {
				r := h.replica(i, staticTemplate)
				r.Files = append(r.Files, test.output)
				h.publish(r)
			}
			h.requireCount("auth/jwt/login", 3)
			h.requireCount("kv/static", 1)
			if test.path != "" {
				h.requireCount(test.path, 2)
			}
			if status := h.statuses()[0]; status.Session.Logins != 1 || status.Session.Pods != 1 || status.Shared.Logins != 1 || status.Shared.Pods != 2 {
				t.Errorf("the status is %+v, %+v", status.Session, status.Shared)
			}
			h.closeReplica(0)
			waitFor(t, func() bool { return h.vault.aliveTokens() == 2 })
			h.advance(time.Hour, func() {})
			h.end()
			h.begin()
			h.advance(time.Hour, func() {})
			h.requireCount("auth/jwt/login", 3)
			if test.path == "database/creds/app" {
				h.requireCount(test.path, 2)
			}
			h.closeReplica(1)
			h.vault.awaitNoToken(t)
		})
	}
}

// A node of pods with nothing to share pays no login for it once it knows the mount.
func TestNothingSharedIsNoSharedLogin(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(0, databaseTemplate))
	h.closeReplica(0)
	h.vault.awaitNoToken(t)
	before := h.vault.count("auth/jwt/login")
	h.publish(h.replica(1, databaseTemplate))
	h.requireCount("auth/jwt/login", before+1)
	h.advance(5*time.Minute, func() { h.requireOpens(h.replica(1).VolumeID) })
}

func TestNothingElseIsSharedAmongPods(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	change := map[string]func(*Request){
		"the same":            func(*Request) {},
		"service account":     func(r *Request) { r.Login.ServiceAccount = "default/other" },
		"kubernetes":          func(r *Request) { r.Login.ServiceAccount = "other/app" },
		"no service account":  func(r *Request) { r.Login.ServiceAccount = "" },
		"role":                func(r *Request) { r.Login.Role = "other" },
		"audience":            func(r *Request) { r.Login.Audience = "other" },
		"namespace":           func(r *Request) { r.Options.Namespace = "other" },
		"address":             func(r *Request) { r.Endpoint.Address += "/" },
		"server name":         func(r *Request) { r.Endpoint.ServerName = "other" },
		"approle":             func(r *Request) { r.Login.RoleID = "r" },
		"refresh off":         func(r *Request) { r.Refresh.Disabled = true },
		"no account either":   func(r *Request) { r.Login.ServiceAccount = "" },
		"another approle":     func(r *Request) { r.Login.RoleID = "r" },
		"another refresh off": func(r *Request) { r.Refresh.Disabled = true },
	}
	for name, change := range change {
		r := h.replica(0, staticTemplate)
		r.VolumeID, r.Pod = name, "default/"+name
		change(&r)
		h.publish(r)
	}
	h.requireCount("auth/jwt/login", len(change))
	for name, change := range map[string]func(*Request){
		"CA bundle":   func(r *Request) { r.Endpoint.CACert = "other" },
		"certificate": func(r *Request) { r.Endpoint.ClientCert, r.Endpoint.ClientKey = "cert", "key" },
	} {
		r := h.replica(1)
		same := h.sharingKey(loginConfig{r.Endpoint, r.Options, r.Login}, r.Refresh)
		change(&r)
		if key := h.sharingKey(loginConfig{r.Endpoint, r.Options, r.Login}, r.Refresh); key == same {
			t.Errorf("pods share a login whose %s differ", name)
		}
	}
}

// Without the setting, each pod is by itself, service account or not.
func TestNothingIsSharedByDefault(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.openReplicas(staticTemplate)
	h.requireCount("auth/jwt/login", replicas)
	h.requireCount("kv/static", replicas)
	if n := h.stats(); n.Sessions != replicas || n.SessionsShared != 0 || n.VolumesSharing != 0 || h.statuses()[0].Shared != nil {
		t.Errorf("the numbers are %+v", n)
	}
}

func TestFailedLoginOfReplicasNamesNoFile(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	r := h.replica(0, staticTemplate)
	r.Login.JWT = "old"
	_, err := h.tryPublish(t.Context(), r)
	if !errors.Is(err, ErrRefused) || errors.As(err, new(*FileError)) || !strings.Contains(err.Error(), `service account default/app`) {
		t.Errorf("got %v", err)
	}
	if n := h.stats(); n.Sessions != 0 || len(h.shared) != 0 {
		t.Errorf("%d sessions are left", len(h.shared))
	}
}

// A Vault that does not know its own tokens, as a node of a cluster that lags, is
// no reason to try with more of them.
func TestNewTokenIsNotKnownEither(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.vault.change(func() { h.vault.tokenTTL = 0 })
	if _, err := h.tryPublish(t.Context(), h.replica(0, staticTemplate)); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	h.requireCount("auth/jwt/login", 2)
}

// A token that no volume used in the end is revoked, whatever is to become of those
// that are.
func TestFailedOpenOfAReplicaLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	r := h.replica(0, staticTemplate, databaseTemplate, `{{ with secret "kv/forbidden" }}{{ end }}`)
	r.Refresh.SkipRevoke = true
	if _, err := h.tryPublish(t.Context(), r); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	h.requireCount("auth/jwt/login", 2)
	h.vault.awaitNoToken(t)
	h.awaitNoRecord()
}

// A new process logs nobody in, and goes on to read for all at once.
func TestReplicasOutliveTheProcess(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	for range 6 {
		h.end()
		h.begin()
		h.advance(10*time.Minute, func() {})
	}
	h.requireCount("auth/jwt/login", 1)
	// A process may end between the first of the replicas that were due, and the last.
	if got := h.vault.count("kv/static"); got > 1+60*100/85/5+6 {
		t.Errorf("%d reads in an hour", got)
	}
	if got := len(h.statuses()); got != replicas {
		t.Fatalf("%d volumes are open", got)
	}
	for i := range replicas - 1 {
		h.closeReplica(i)
	}
	h.vault.change(func() { clear(h.vault.tokens) }) // the last one's own means are known
	h.advance(DefaultInterval, func() {})
	h.requireCount("auth/jwt/login", 2)
	h.closeReplica(replicas - 1)
	h.vault.awaitNoToken(t)
	h.awaitNoRecord()
}

// The pod that logged in went while no driver ran.
func TestReplicasGoOnWithoutTheOneThatLoggedIn(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.publish(h.replica(0, staticTemplate))
	h.publish(h.replica(1, staticTemplate))
	gone := h.replica(1, staticTemplate)
	gone.Login.JWT = "old"
	h.republish(gone)
	h.end()
	h.remove(gone.VolumeID)
	h.begin()
	h.vault.change(func() { clear(h.vault.tokens) })
	h.advance(DefaultInterval, func() {})
	h.requireCount("auth/jwt/login", 2)
	if status := h.statuses()[0]; status.Err != nil || status.Shared.Pods != 1 {
		t.Errorf("the status is %+v, %+v", status.Err, status.Shared)
	}
}

// The driver starts again with another setting: pods that shared log in by
// themselves then, and the token that they shared ends.
func TestSharingIsTurnedOff(t *testing.T) {
	t.Parallel()
	h := newSharingHarness(t)
	h.openReplicas(staticTemplate)
	h.end()
	h.sharing = ShareNothing
	h.vault.change(func() { h.vault.static = "second" })
	h.begin()
	h.advance(DefaultInterval, func() {})
	h.requireReplicas("second")
	h.requireCount("auth/jwt/login", 1+replicas)
	waitFor(t, func() bool { return h.vault.aliveTokens() == replicas })
	if n := h.stats(); n.Sessions != replicas || n.SessionsShared != 0 || n.VolumesSharing != 0 {
		t.Errorf("the numbers are %+v", n)
	}
}

// And with sharing on, pods that are there keep what they have.
func TestSharingIsTurnedOn(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.replica(0, staticTemplate))
	h.end()
	h.sharing = ShareServiceAccount
	h.begin()
	h.publish(h.replica(1, staticTemplate))
	h.publish(h.replica(2, staticTemplate))
	h.advance(time.Hour, func() {})
	h.requireCount("auth/jwt/login", 2)
	if all := h.statuses(); all[0].Shared != nil || all[1].Shared == nil || all[1].Shared.Pods != 2 {
		t.Errorf("the volumes are %+v", all)
	}
}

// The record of the shared session is lost, or those of its volumes as well: that costs one
// login together.
func TestUnreadableRecordCostsReplicasALogin(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]bool{"of the session": false, "of the volumes as well": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newSharingHarness(t)
			h.openReplicas(staticTemplate)
			h.end()
			h.store.change(sharedPrefix, func([]byte) []byte { return nil })
			for _, m := range h.mounts {
				if all {
					m.record = []byte("garbage")
				}
			}
			h.vault.change(func() { h.vault.static = "second" })
			h.begin()
			for i := range replicas {
				h.republish(h.replica(i, staticTemplate))
			}
			h.advance(DefaultInterval, func() {})
			h.requireReplicas("second")
			h.requireCount("auth/jwt/login", 2)
			for i := range replicas {
				h.closeReplica(i)
			}
			waitFor(t, func() bool { return h.vault.aliveTokens() == 1 }) // that of the lost record
			h.awaitNoRecord()
		})
	}
}

func TestIsFresh(t *testing.T) {
	t.Parallel()
	const maxAge = 5 * time.Minute
	tests := map[string]struct {
		fetched, own time.Duration // before the pass began; own 0 is none
		want         bool
	}{
		"fetched in this pass":          {0, time.Minute, true},
		"fetched by itself in the pass": {0, -time.Second, true},
		"newer and fresh":               {time.Minute, 2 * time.Minute, true},
		"fresh, and there is none":      {time.Minute, 0, true},
		"the one at hand":               {time.Minute, time.Minute, false},
		"older than the one at hand":    {2 * time.Minute, time.Minute, false},
		"newer than a very old one":     {maxAge, time.Hour, false},
		"old, and there is none":        {maxAge, 0, false},
		"almost old, and there is one":  {maxAge - 1, maxAge, true},
	}
	m := newHarness(t).Manager
	now := m.now()
	for name, test := range tests {
		p, own := &fetchPass{volume: &Volume{manager: m}, started: now, maxAge: maxAge}, bootTime(0)
		if test.own != 0 {
			own = now - test.own
		}
		if got := p.isFresh(now-test.fetched, own); got != test.want {
			t.Errorf("%s: got %t", name, got)
		}
	}
}

// cacheCall is a call of a cache, and its result once it has returned.
type cacheCall struct {
	value template.Value
	isOwn bool
	err   error
	ended bool
}

func startCall(ctx context.Context, c *kvCache, m *Manager, isBackground bool) *cacheCall {
	call := &cacheCall{}
	p := &fetchPass{volume: &Volume{manager: m}, started: m.now(), isBackground: isBackground}
	go func() {
		entry, isOwn, err := c.get(ctx, p, &dependency{Key: keyOf("kv/a")})
		*call = cacheCall{entry.value, isOwn, err, true}
	}()
	synctest.Wait()
	return call
}

// Those who wait while one reads get the same result, be it a value or an error. Those who
// come later read again after an error.
func TestCacheReadsOnceForAllThatWait(t *testing.T) {
	t.Parallel()
	value := template.Value{Secret: &api.Secret{Data: map[string]any{"value": "x"}}}
	for name, want := range map[string]struct {
		err   error
		reads int // with one that comes later
	}{"a value": {nil, 1}, "an error": {ErrNotFound, 2}, "a panic": {nil, 2}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(Config{Clock: clock.RealClock{}, Clients: vault.NewClientPool(vault.Config{})})
				reads, release := 0, make(chan struct{})
				c := &kvCache{entries: map[template.Dependency]*kvEntry{}, read: func(context.Context, *fetchPass, template.Dependency) (template.Value, error) {
					reads++
					<-release
					if name == "a panic" {
						panic("canary")
					}
					return value, want.err
				}}
				calls := []*cacheCall{startCall(t.Context(), c, m, false), startCall(t.Context(), c, m, false), startCall(t.Context(), c, m, false)}
				close(release)
				synctest.Wait()
				for i, call := range calls {
					isPanic := errors.As(call.err, new(*recovery.PanicError))
					if !call.ended || call.isOwn != (i == 0) || !isPanic && !errors.Is(call.err, want.err) || isPanic != (name == "a panic") {
						t.Errorf("call %d: %+v", i, *call)
					}
				}
				startCall(t.Context(), c, m, false)
				if reads != want.reads {
					t.Errorf("%d reads, want %d", reads, want.reads)
				}
				m.Shutdown(t.Context())
			})
		})
	}
}

// If the one that reads gives up, another one that waits reads; and a pod that starts does
// not wait for the background.
func TestCacheCallsThatDoNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{Clock: clock.RealClock{}, Clients: vault.NewClientPool(vault.Config{})})
		var readers []bool // whether they are in the background
		release := make(chan struct{})
		c := &kvCache{entries: map[template.Dependency]*kvEntry{}, read: func(ctx context.Context, p *fetchPass, _ template.Dependency) (template.Value, error) {
			readers = append(readers, p.isBackground)
			select {
			case <-release:
				return template.Value{}, nil
			case <-ctx.Done():
				return template.Value{}, ctx.Err()
			}
		}}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := startCall(ctx, c, m, true), startCall(t.Context(), c, m, true)
		starting := startCall(t.Context(), c, m, false)
		cancel()
		synctest.Wait()
		if !errors.Is(first.err, context.Canceled) || second.ended || starting.ended || !slices.Equal(readers, []bool{true, false, true}) {
			t.Errorf("%+v, %+v, %+v, read by %v", *first, *second, *starting, readers)
		}
		close(release)
		synctest.Wait()
		if !second.ended || second.err != nil || !starting.ended || starting.err != nil {
			t.Errorf("%+v, %+v", *second, *starting)
		}
		m.Shutdown(t.Context())
	})
}
