package provider

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/template"
)

// A lease of 20 s that may last a minute, for five minutes: what is in the file
// always opens the database, and no more credentials are made than its max TTL
// asks for.
func TestCredentialsAreAlwaysGood(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", databaseTemplate))
	h.advance(5*time.Minute, func() { h.requireOpens("v") })
	if got := h.vault.count("database/creds/app"); got < 5 || got > 7 {
		t.Errorf("%d credentials were made", got)
	}
	if got := h.vault.count("sys/leases/renew"); got < 20 {
		t.Errorf("%d renewals were made, so few that nothing was tested", got)
	}
	h.requireCount("auth/jwt/login", 1)
}

// The same with a process that ends every 20 s, which costs no credential.
func TestCredentialsAreAlwaysGoodOverRestarts(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", databaseTemplate, staticTemplate))
	check := func() {
		if username, _, _ := strings.Cut(h.content("v"), "|"); !h.vault.opens(username) {
			t.Fatalf("dead credentials %q after %s", username, h.time.Now().Sub(start))
		}
	}
	for range 15 {
		h.end()
		h.begin()
		h.advance(20*time.Second, check)
	}
	if got := h.vault.count("database/creds/app"); got < 5 || got > 7 {
		t.Errorf("%d credentials were made", got)
	}
	h.requireCount("auth/jwt/login", 1)
	if got := h.vault.count("kv/static"); got > 2 {
		t.Errorf("%d reads of the static secret in 5 minutes", got)
	}
}

// Ten pods for ten hours: one login each, and as many reads as the interval says.
func TestStaticSecretsCostWhatTheSettingsSay(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const pods, hours = 10, 10
	for i := range pods {
		r := h.request("v"+string(rune('0'+i)), staticTemplate)
		h.publish(r)
	}
	h.advance(hours*time.Hour, func() {})
	h.requireCount("auth/jwt/login", pods)
	// Every 5 min × 0.85 to 0.95: 12.6 to 14.1 times an hour.
	if got := h.vault.count("kv/static"); got < pods*hours*126/10 || got > pods*hours*142/10 {
		t.Errorf("%d reads", got)
	}
	// A third of an hour × 0.75 to 1: 3 to 4 times an hour.
	if got := h.vault.count("auth/token/renew-self"); got < pods*hours*3-pods || got > pods*hours*4 {
		t.Errorf("%d renewals of tokens", got)
	}
	for id, m := range h.mounts {
		if m.writes != 0 {
			t.Errorf("%s: unchanged content was written %d times", id, m.writes)
		}
	}
}

func TestStaticSecretIsReadAtItsInterval(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate, databaseTemplate, `{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`)
	r.Refresh.StaticInterval = time.Minute
	h.vault.change(func() { h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour })
	h.publish(r)
	h.vault.change(func() { h.vault.static = "second" })
	h.advance(50*time.Second, func() {})
	if got := h.content("v"); !strings.HasPrefix(got, "first|") {
		t.Errorf("before its interval, the file holds %q", got)
	}
	h.advance(10*time.Second, func() {})
	if got := h.content("v"); !strings.HasPrefix(got, "second|") {
		t.Errorf("after its interval, the file holds %q", got)
	}
	h.advance(10*time.Minute, func() {})
	// What reading creates is left alone, and so are credentials that are good.
	h.requireCount("database/creds/app", 1)
	h.requireCount("transit/encrypt/app", 1)
}

// A token near its max TTL is replaced, and credentials under it before it ends.
func TestTokenIsReplacedBeforeItsMaxTTL(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*fakeVault){
		"renewable":     func(v *fakeVault) { v.tokenTTL, v.tokenMax = 10*time.Minute, 30*time.Minute },
		"not renewable": func(v *fakeVault) { v.tokenTTL, v.fixedTokens = 30*time.Minute, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.vault.change(func() {
				set(h.vault)
				h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour
			})
			r := h.request("v", databaseTemplate)
			r.Files = append(r.Files, FileSpec{Template: Template{Name: "token"}, Token: true})
			h.publish(r)
			check := func() {
				username, token, _ := strings.Cut(h.content("v"), "|")
				if !h.vault.opens(username) {
					t.Fatalf("dead credentials after %s", h.time.Now().Sub(start))
				}
				h.vault.change(func() {
					if !h.vault.alive(h.vault.tokens[token]) {
						t.Fatalf("the file holds a dead token after %s", h.time.Now().Sub(start))
					}
				})
			}
			h.advance(3*time.Hour, check)
			logins := h.vault.count("auth/jwt/login")
			if logins < 6 || logins > 9 {
				t.Errorf("%d logins in 3 hours, with tokens for half an hour", logins)
			}
			h.requireCount("database/creds/app", logins)
			h.close("v")
			h.remove("v")
			h.vault.awaitNoToken(t)
		})
	}
}

func (v *fakeVault) awaitNoToken(t *testing.T) {
	t.Helper()
	waitFor(t, func() bool { return v.aliveTokens() == 0 })
}

// An administrator revokes the token: its leases are gone, and the next renewal
// finds out.
func TestRevokedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", databaseTemplate))
	h.vault.change(func() { clear(h.vault.tokens) })
	h.advance(10*time.Second, func() {})
	h.requireOpens("v")
	h.requireCount("auth/jwt/login", 2)
	h.requireCount("database/creds/app", 2)
}

// The login that follows is refused, as of a pod whose service-account token has
// expired; the kubelet brings a new one.
func TestFreshLoginIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", databaseTemplate)
	r.Login.JWT = "old"
	h.vault.change(func() { h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour })
	good := r
	good.Login.JWT = "jwt-1"
	h.publish(good)
	h.republish(r)
	h.vault.change(func() { clear(h.vault.tokens) })
	h.advance(time.Hour, func() {})
	if err := h.statuses()[0].Err; !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "token is expired") {
		t.Errorf("the volume's error is %v", err)
	}
	good.Login.JWT = "jwt-2"
	h.republish(good)
	h.waitIdle()
	h.requireOpens("v")
	if status := h.statuses()[0]; status.Err != nil {
		t.Errorf("the volume's error is %v", status.Err)
	}
	if got := strings.Count(h.logs.String(), "files stay as they are"); got > 2 {
		t.Errorf("the failure is logged %d times", got)
	}
}

func TestRefreshOff(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", databaseTemplate, staticTemplate)
	r.Refresh.Disabled = true
	h.vault.change(func() { h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour })
	h.publish(r)
	before := h.content("v")
	h.vault.change(func() { h.vault.static = "second" })
	check := func() {
		if username, _, _ := strings.Cut(h.content("v"), "|"); !h.vault.opens(username) {
			t.Fatalf("the credentials died after %s", h.time.Now().Sub(start))
		}
	}
	h.advance(20*time.Hour, check)
	h.republish(r)
	h.republish(r)
	h.advance(3*time.Hour, check)
	h.end()
	h.begin()
	h.advance(30*time.Hour, func() {})
	h.requireContent("v", before)
	h.requireCount("database/creds/app", 1)
	h.requireCount("auth/jwt/login", 1)
}

// A panic in the refresh of one volume is that refresh's error: the process lives, the
// other volume has good credentials all along, and the first recovers.
func TestPanicIsTheErrorOfItsRefresh(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", databaseTemplate))
	h.publish(h.request("w", databaseTemplate))
	h.mount("v").change(func() { h.mounts["v"].panics = true })
	h.advance(5*time.Minute, func() { h.requireOpens("w") })
	for _, status := range h.statuses() {
		if status.VolumeID == "v" && !errors.As(status.Err, new(*recovery.PanicError)) {
			t.Errorf("the status is %v, want a PanicError", status.Err)
		}
	}
	if got := h.logs.String(); strings.Count(got, "stack=") != 1 || !strings.Contains(got, "Replace") {
		t.Errorf("the log does not hold the stack once:\n%s", got)
	}
	h.mount("v").change(func() { h.mounts["v"].panics = false })
	h.advance(2*time.Minute, func() { h.requireOpens("w") })
	h.requireOpens("v")
}

// panicking panics as soon as a template has its secrets.
type panicking struct{ Renderer }

func (p panicking) Render(ctx context.Context, templates []template.Template, answers template.Values) ([]template.Result, error) {
	if len(answers) > 0 {
		panic("canary")
	}
	return p.Renderer.Render(ctx, templates, answers)
}

// After a panic in Open nothing is left, as after any error.
func TestPanicIsTheErrorOfItsOpen(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	healthy := h.Manager.renderer
	h.Manager.renderer = panicking{healthy}
	request := h.request("v", `{{ with secret "kv/static" }}{{ .Data.value | toUpper }}{{ end }}`)
	if _, err := h.tryPublish(t.Context(), request); !errors.As(err, new(*recovery.PanicError)) {
		t.Errorf("got %v, want a PanicError", err)
	}
	if left := h.statuses(); len(left) > 0 {
		t.Errorf("%d volumes are left", len(left))
	}
	h.vault.awaitNoToken(t)
	h.Manager.renderer = healthy
	h.publish(request)
	h.requireContent("v", "FIRST")
}

// The driver's side may panic when it hears of a refresh. The process lives, and the volume
// is refreshed again later.
func TestPanicOutsideOfARequestIsSurvived(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.mount("v").change(func() { h.mounts["v"].heard = func() { panic("canary") } })
	h.vault.change(func() { h.vault.static = "second" })
	h.advance(DefaultInterval, func() {})
	h.mount("v").change(func() { h.mounts["v"].heard = nil })
	h.vault.change(func() { h.vault.static = "third" })
	h.advance(DefaultInterval+panicBackoff, func() {})
	h.requireContent("v", "third")
	if !strings.Contains(h.logs.String(), "Background work failed") {
		t.Error("it is not logged")
	}
}

// Secrets are read in goroutines, where nothing above recovers from a panic.
func TestPanicOfAReadIsItsError(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	v := h.newVolume(h.request("v", staticTemplate), nil)
	p := v.newPass(false, MinInterval)
	defer p.close()
	d := &dependency{Key: keyOf("kv/static")}
	results := p.each(t.Context(), []*dependency{d}, func(context.Context, *dependency) fetched { panic("canary") })
	if !errors.As(results[0].err, new(*recovery.PanicError)) {
		t.Errorf("got %v, want a PanicError", results[0].err)
	}
}
