package provider

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// engine has requests for a secrets engine answered otherwise.
func (v *playedVault) engine(prefix string, do func(w http.ResponseWriter, r *http.Request)) {
	v.change(func() {
		v.instead = func(w http.ResponseWriter, r *http.Request) bool {
			here := strings.HasPrefix(r.URL.Path, "/v1/"+prefix)
			if here {
				do(w, r)
			}
			return here
		}
	})
}

func breakDown(w http.ResponseWriter, _ *http.Request) {
	respondErrors(w, http.StatusInternalServerError, "failed to connect to database")
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// One secrets engine that fails, or takes requests and does not answer, is not taken
// for Vault: the others are asked, in the same refresh, and written.
func TestOneEngineDoesNotKeepOthersFromBeingAsked(t *testing.T) {
	t.Parallel()
	for name, engine := range map[string]http.HandlerFunc{"broken": breakDown, "hanging": hang} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.patience.ask = 100 * time.Millisecond
			r := b.request("v", `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`, staticTemplate)
			b.open(r)
			b.vault.engine("database/", engine)
			b.vault.change(func() { b.vault.static = "second" })
			b.time.Step(20 * time.Second)
			b.Republish(r) // an event, which has both read
			b.settle()
			b.requireContent("v", "app|second")
			for _, due := range b.Volumes()[0].Secrets {
				if failed := strings.HasPrefix(due.Path, "database/"); errors.Is(due.Err, ErrUnavailable) != failed || (due.Err != nil) != failed {
					t.Errorf("%s has the error %v", due.Path, due.Err)
				}
			}
		})
	}
}

// What has taken all the time of a refresh comes last in the next one, and what was
// not asked for is asked for at once.
func TestHangingEnginesStarveNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.patience = patience{refresh: time.Second, fetch: 150 * time.Millisecond, ask: 100 * time.Millisecond}
	var templates []string
	for _, path := range []string{"database/static-creds/app", "kv/static", "kv/of-a-pod"} {
		templates = append(templates, `{{ with secret "`+path+`" }}{{ .Data.value }}{{ end }}`)
	}
	templates = append(templates, `{{ with secret "a/first" }}{{ .Data.value }}{{ end }}`)
	b.vault.change(func() {
		b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/v1/a/first") {
				return false
			}
			respond(w, map[string]any{"data": map[string]any{"value": "a"}})
			return true
		}
	})
	r := b.request("v", templates...)
	b.open(r)
	b.vault.change(func() {
		b.vault.static = "second"
		b.vault.instead = func(_ http.ResponseWriter, r *http.Request) bool {
			hangs := strings.HasSuffix(r.URL.Path, "/v1/a/first") || strings.HasPrefix(r.URL.Path, "/v1/database/")
			if hangs {
				<-r.Context().Done()
				b.time.Step(time.Minute) // so that it is due again when the other one has hung
			}
			return hangs
		}
	})
	b.time.Step(20 * time.Second)
	b.Republish(r)
	waitFor(t, func() bool { return strings.Contains(b.files.content("v"), "|second|second|") })
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the volume's error is %v", err)
	}
}

// A token is replaced up to an hour before its end. If nothing can be made under the
// new one just then, the leases under the old one go on for as long as that does.
func TestLeasesOfAnOldTokenAreRenewedWhereNothingReplacesThem(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.vault.change(func() {
		b.vault.tokenTTL, b.vault.tokenMax = 2*time.Hour, 2*time.Hour
		b.vault.leaseTTL, b.vault.leaseMax = 5*time.Minute, 24*time.Hour
	})
	b.open(b.request("v", databaseTemplate))
	b.pass(time.Hour, func() { b.requireOpens("v") })
	var attempts atomic.Int32
	b.vault.engine("database/", func(w http.ResponseWriter, r *http.Request) {
		attempts.Add(1)
		breakDown(w, r)
	})
	before := 0
	b.pass(55*time.Minute, func() {
		b.requireOpens("v")
		if attempts.Load() == 0 {
			before = b.vault.count("sys/leases/renew")
		}
	})
	b.requireCount("auth/jwt/login", 2)
	// A failure counts once, though two things were tried, and waits grow; and a lease
	// is renewed where there is need, not at each attempt.
	if renewals := b.vault.count("sys/leases/renew") - before; attempts.Load() > 80 || renewals > int(attempts.Load())/2 {
		t.Errorf("%d attempts, %d renewals", attempts.Load(), renewals)
	}
	status := b.Volumes()[0]
	if !errors.Is(status.Err, ErrUnavailable) || strings.Contains(status.Err.Error(), "renew") {
		t.Errorf("the volume's error is %v", status.Err)
	}
	if wait := status.Next.Sub(b.time.Now()); wait > awayBackoff*5/4 {
		t.Errorf("the next attempt is after %s", wait)
	}
	b.vault.change(func() { b.vault.instead = nil })
	b.pass(20*time.Minute, func() { b.requireOpens("v") })
	b.requireCount("database/creds/app", 2)
	if err := b.Volumes()[0].Err; err != nil {
		t.Errorf("the volume's error is %v", err)
	}
}
