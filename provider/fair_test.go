package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// hangs makes all requests with a prefix hang until the test ends, and counts them.
func (v *playedVault) hangs(t *testing.T, prefix string) *atomic.Int64 {
	t.Helper()
	var hanging atomic.Int64
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	v.change(func() {
		v.instead = func(_ http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/v1/"+prefix) {
				return false
			}
			hanging.Add(1)
			select {
			case <-r.Context().Done():
			case <-ended:
			}
			return true
		}
	})
	return &hanging
}

// of returns a request of a pod in a namespace, at an address.
func (b *bench) of(namespace, name, address string, templates ...string) Request {
	r := b.request(namespace+"-"+name, templates...)
	r.Pod, r.PodUID, r.Endpoint.Address = namespace+"/"+name, namespace+name, address
	return r
}

// 128 volumes of one tenant wait for a Vault that hangs: the volume of another tenant is
// refreshed at each of its intervals.
func TestHangingVaultOfATenantDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.patience = patience{refresh: time.Hour, fetch: time.Hour, ask: time.Hour} // nobody gives up
	slow := startPlayedVault(t, b.time)
	for i := range 2 * workers {
		r := b.of("evil", fmt.Sprint(i), slow.URL, staticTemplate)
		r.Refresh.StaticInterval, r.Options.Timeout = MinInterval, time.Hour
		b.open(r)
	}
	victim := b.of("victim", "v", b.vault.URL, staticTemplate)
	victim.Refresh.StaticInterval = MinInterval
	b.open(victim)
	hanging := slow.hangs(t, "kv/")
	for i := range 10 {
		want := fmt.Sprint("value ", i)
		b.vault.change(func() { b.vault.static = want })
		b.time.Step(MinInterval)
		waitFor(t, func() bool { return b.files.content(victim.VolumeID) == want })
	}
	if hanging.Load() == 0 {
		t.Error("nothing hangs, so nothing is tested")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Stop(ctx)
}

// Neither the tokens of another tenant nor those of the same one at another Vault, which
// hangs, keep a token from being revoked.
func TestHangingVaultDelaysNoOtherRevocation(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	slow := startPlayedVault(t, b.time)
	for i := range 2 * revokers {
		b.open(b.of("evil", fmt.Sprint(i), slow.URL, staticTemplate))
	}
	for _, namespace := range []string{"evil", "victim"} {
		b.open(b.of(namespace, "v", b.vault.URL, staticTemplate))
	}
	hanging := slow.hangs(t, "auth/token/revoke-self")
	for i := range 2 * revokers {
		b.Close(fmt.Sprint("evil-", i))
	}
	waitFor(t, func() bool { return hanging.Load() > 0 })
	b.Close("victim-v")
	b.Close("evil-v")
	b.vault.awaitNoToken(t)
	waitFor(t, func() bool { return b.Numbers().PendingRevocations == 2*revokers })
	if hanging.Load() != 1 {
		t.Errorf("%d requests hang", hanging.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Stop(ctx)
}

type revoked struct {
	nobody

	failed atomic.Int64
}

// Revoked implements Observer.
func (r *revoked) Revoked(err error) {
	if err != nil {
		r.failed.Add(1)
	}
}

// A namespace that fills its share of the queue loses what is more, in this process and
// the next, and no other loses anything. What is lost is logged and counted.
func TestRevocationsOfANamespaceAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seen := &revoked{}
	b.observer = seen
	b.restart()
	b.open(b.of("evil", "v", b.vault.URL, staticTemplate))
	b.open(b.of("victim", "v", b.vault.URL, staticTemplate))
	b.vault.change(func() { b.vault.down = true })
	with, g := b.sessions[sessionKey(b.of("evil", "v", b.vault.URL))].means, grant{Term: newTerm(start, 24*time.Hour, false)}
	for i := range limits.Revocations.Max() {
		g.Token.Secret = fmt.Sprint("hvs.canary-of-", i)
		b.revocations.add("evil", with, g)
	}
	if got := b.Numbers().PendingRevocations; got != limits.Revocations.Max() || seen.failed.Load() != 0 {
		t.Errorf("at the limit, %d tokens wait, and %d failed", got, seen.failed.Load())
	}
	b.Close("evil-v")
	b.Close("victim-v")
	b.files.remove("evil-v")
	b.files.remove("victim-v")
	for _, when := range []string{"in this process", "in the next"} {
		if got := b.Numbers().PendingRevocations; got != limits.Revocations.Max()+1 || seen.failed.Load() != 1 {
			t.Errorf("%s, %d tokens wait, and %d failed", when, got, seen.failed.Load())
		}
		b.restart()
	}
	if got := strings.Count(b.logs.String(), "too many tokens of its namespace wait"); got != 1 || !strings.Contains(b.logs.String(), "(revocations)") {
		t.Errorf("it is logged %d times", got)
	}
	b.end()
	// A record of a token more than the limit, as another program might leave it.
	var left revocationRecord
	b.saved.change(revocationPrefix, func(record []byte) []byte {
		if json.Unmarshal(record, &left) != nil || left.Namespace != "victim" {
			return record
		}
		return bytes.Replace(record, []byte(`"Namespace":"victim"`), []byte(`"Namespace":"evil"`), 1)
	})
	b.begin()
	if got := b.Numbers().PendingRevocations; got != limits.Revocations.Max() || seen.failed.Load() != 2 {
		t.Errorf("after the start with one more, %d tokens wait, and %d failed", got, seen.failed.Load())
	}
}
