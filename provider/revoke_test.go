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
func (v *fakeVault) hangs(t *testing.T, prefix string) *atomic.Int64 {
	t.Helper()
	var hanging atomic.Int64
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	v.change(func() {
		v.override = func(_ http.ResponseWriter, r *http.Request) bool {
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

// 128 volumes of one tenant wait for a Vault that hangs: the volume of another tenant is
// refreshed at each of its intervals.
func TestHangingVaultOfATenantDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.Manager.timeouts = timeouts{refresh: time.Hour, fetch: time.Hour, request: time.Hour} // nobody gives up
	slow := startFakeVault(t, h.time)
	for i := range 2 * refreshWorkers {
		r := h.of("evil", fmt.Sprint(i), slow.URL, staticTemplate)
		r.Refresh.StaticInterval, r.Options.Timeout = MinInterval, time.Hour
		h.publish(r)
	}
	victim := h.of("victim", "v", h.vault.URL, staticTemplate)
	victim.Refresh.StaticInterval = MinInterval
	h.publish(victim)
	hanging := slow.hangs(t, "kv/")
	for i := range 10 {
		want := fmt.Sprint("value ", i)
		h.vault.change(func() { h.vault.static = want })
		h.time.Step(MinInterval)
		waitFor(t, func() bool { return h.content(victim.VolumeID) == want })
	}
	if hanging.Load() == 0 {
		t.Error("nothing hangs, so nothing is tested")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Shutdown(ctx)
}

// Neither the tokens of another tenant nor those of the same one at another Vault, which
// hangs, keep a token from being revoked.
func TestHangingVaultDelaysNoOtherRevocation(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	slow := startFakeVault(t, h.time)
	for i := range 2 * revokeWorkers {
		h.publish(h.of("evil", fmt.Sprint(i), slow.URL, staticTemplate))
	}
	for _, namespace := range []string{"evil", "victim"} {
		h.publish(h.of(namespace, "v", h.vault.URL, staticTemplate))
	}
	hanging := slow.hangs(t, "auth/token/revoke-self")
	for i := range 2 * revokeWorkers {
		h.close(fmt.Sprint("evil-", i))
	}
	waitFor(t, func() bool { return hanging.Load() > 0 })
	h.close("victim-v")
	h.close("evil-v")
	h.vault.awaitNoToken(t)
	waitFor(t, func() bool { return h.stats().PendingRevocations == 2*revokeWorkers })
	if hanging.Load() != 1 {
		t.Errorf("%d requests hang", hanging.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Shutdown(ctx)
}

// A namespace that fills its share of the queue loses what is more, in this process and
// the next, and no other loses anything. What is lost is logged and counted.
func TestRevocationsOfANamespaceAreBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	var failed atomic.Int64
	h.revoked = func(err error) {
		if err != nil {
			failed.Add(1)
		}
	}
	h.restart()
	h.publish(h.of("evil", "v", h.vault.URL, staticTemplate))
	h.publish(h.of("victim", "v", h.vault.URL, staticTemplate))
	h.vault.change(func() { h.vault.down = true })
	r := h.of("evil", "v", h.vault.URL)
	token := issuedToken{Lease: newLease(h.now(), 24*time.Hour, false)}
	for i := range limits.Revocations.Max() {
		token.Token.Secret = fmt.Sprint("hvs.canary-of-", i)
		h.revocations.add("evil", loginConfig{r.Endpoint, r.Options, r.Login}, token)
	}
	if got := h.stats().PendingRevocations; got != limits.Revocations.Max() || failed.Load() != 0 {
		t.Errorf("at the limit, %d tokens wait, and %d failed", got, failed.Load())
	}
	h.close("evil-v")
	h.close("victim-v")
	for _, when := range []string{"in this process", "in the next"} {
		if got := h.stats().PendingRevocations; got != limits.Revocations.Max()+1 || failed.Load() != 1 {
			t.Errorf("%s, %d tokens wait, and %d failed", when, got, failed.Load())
		}
		h.restart()
	}
	if got := strings.Count(h.logs.String(), "too many tokens of its namespace wait"); got != 1 || !strings.Contains(h.logs.String(), "(revocations)") {
		t.Errorf("it is logged %d times", got)
	}
	h.end()
	// A record of a token more than the limit, as another program might leave it.
	var left revocationRecord
	h.store.change(RevocationPrefix, func(record []byte) []byte {
		if json.Unmarshal(record, &left) != nil || left.Namespace != "victim" {
			return record
		}
		return bytes.Replace(record, []byte(`"Namespace":"victim"`), []byte(`"Namespace":"evil"`), 1)
	})
	h.begin()
	if got := h.stats().PendingRevocations; got != limits.Revocations.Max() || failed.Load() != 2 {
		t.Errorf("after the start with one more, %d tokens wait, and %d failed", got, failed.Load())
	}
}
