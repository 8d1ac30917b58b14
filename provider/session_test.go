package provider

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Each volume logs in by itself. The token is revoked when the volume is closed, unless the
// volume leaves it, also by a process that has not published it.
func TestVolumeHasATokenOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]bool{"in one process": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			keep := h.request("keep", staticTemplate)
			keep.Refresh.SkipRevoke = true
			h.publish(keep)
			h.publish(h.request("revoke", staticTemplate))
			h.requireCount("auth/jwt/login", 2)
			if restarts {
				h.restart()
			}
			h.close("revoke")
			h.close("keep")
			waitFor(t, func() bool { return h.stats().PendingRevocations == 0 })
			h.awaitNoRecord()
			h.requireCount("auth/token/revoke-self", 1)
			if got := h.vault.aliveTokens(); got != 1 {
				t.Errorf("%d tokens are alive", got)
			}
		})
	}
}

// The certificates and tokens of a republish are the next process's as well, and cost no
// login.
func TestFreshCredentialsKeepTheToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate)
	h.publish(r)
	r.Login.JWT, r.Endpoint.CACert = "jwt-2", "not in PEM form"
	h.republish(r)
	h.restart()
	got := h.mount("v").getVolume()
	h.end()
	if got.Session.Config.Login.JWT != "jwt-2" || got.Session.Config.Endpoint.CACert != "not in PEM form" {
		t.Errorf("the next process has %+v", got.Session.Config.Login)
	}
	h.begin()
	h.requireCount("auth/jwt/login", 1)
}

// A volume that cannot be published takes its token with it, whatever becomes of those
// that are used.
func TestFailedPublishLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	broken := h.request("broken", databaseTemplate, `{{ with secret "kv/forbidden" }}{{ end }}`)
	broken.Refresh.SkipRevoke = true
	if _, err := h.tryPublish(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Fatalf("got %v", err)
	}
	h.vault.awaitNoToken(t)
	h.awaitNoRecord()
	if got := len(h.statuses()); got != 0 {
		t.Errorf("there are %d volumes", got)
	}
}

// A volume whose files could not be attached is closed before its start.
func TestCloseBeforeTheStart(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	m := h.mount("v")
	v, _, err := h.Publish(t.Context(), h.request("v", staticTemplate), m)
	if err != nil {
		t.Fatal(err)
	}
	if m.saves != 1 {
		t.Errorf("it was saved %d times, so a process that is killed would lose its token", m.saves)
	}
	h.remove("v")
	v.Close()
	v.Start() // has no effect
	h.vault.awaitNoToken(t)
}

// A caller that gives up does not wait for Vault.
func TestPublishHonoursItsContext(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	asked := make(chan struct{})
	h.vault.engine("auth/jwt/login", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) // so that the server sees when the client goes
		close(asked)
		hang(w, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := h.tryPublish(ctx, h.request("v", staticTemplate)); !errors.Is(err, context.Canceled) && !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// Close does not wait for a request in progress, nothing is written after it, and it is no
// failure: of a refresh, a renewal of the token, and a login.
func TestCloseDuringARequest(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		isFixed bool
		path    string
		steps   []time.Duration
	}{
		"refresh":     {false, "kv/static", []time.Duration{DefaultInterval}},
		"renewal":     {false, "auth/token/renew-self", []time.Duration{20 * time.Minute}},
		"replacement": {true, "auth/jwt/login", []time.Duration{20 * time.Minute, 39 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.vault.change(func() { h.vault.fixedTokens = test.isFixed })
			h.publish(h.request("v", staticTemplate))
			asked := make(chan struct{}, 100)
			h.vault.engine(test.path, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadAll(r.Body) // so that the server sees when the client goes
				asked <- struct{}{}
				hang(w, r)
			})
			for i, step := range test.steps {
				h.time.Step(step)
				if i < len(test.steps)-1 {
					h.waitIdle()
				}
			}
			<-asked
			m := h.mount("v")
			h.close("v")
			h.end()
			if m.writes != 0 {
				t.Error("a closed volume was written")
			}
			if strings.Contains(h.logs.String(), "not refreshed") {
				t.Error("it is logged as a failure")
			}
			h.begin()
		})
	}
}

// Certificates that cannot be used, or an outage, do not end what a volume has.
func TestCertificatesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate)
	h.publish(r)
	good := r
	r.Endpoint.CACert = "no certificate"
	h.republish(r)
	h.vault.change(func() { h.vault.static = "second" })
	h.advance(DefaultInterval, func() {})
	h.requireContent("v", "first")
	if err := h.statuses()[0].Err; !errors.Is(err, ErrInvalid) {
		t.Errorf("the volume's error is %v", err)
	}
	h.republish(good)
	h.advance(maxBackoff*5/4, func() {})
	h.requireContent("v", "second")
	h.requireCount("auth/jwt/login", 1)
}
