package provider

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A lease of 20 s that may last a minute, for five minutes: what is in the file
// always opens the database, and no more credentials are made than its max TTL
// asks for.
func TestCredentialsAreAlwaysGood(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", databaseTemplate))
	b.pass(5*time.Minute, func() { b.requireOpens("v") })
	if got := b.vault.count("database/creds/app"); got < 5 || got > 7 {
		t.Errorf("%d credentials were made", got)
	}
	if got := b.vault.count("sys/leases/renew"); got < 20 {
		t.Errorf("%d renewals were made, so few that nothing was tested", got)
	}
	b.requireCount("auth/jwt/login", 1)
}

// The same with a process that ends every 20 s, which costs no credential.
func TestCredentialsAreAlwaysGoodOverRestarts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", databaseTemplate, staticTemplate))
	check := func() {
		if username, _, _ := strings.Cut(b.files.content("v"), "|"); !b.vault.opens(username) {
			t.Fatalf("dead credentials %q after %s", username, b.time.Now().Sub(start))
		}
	}
	for range 15 {
		b.end()
		b.begin()
		b.pass(20*time.Second, check)
	}
	if got := b.vault.count("database/creds/app"); got < 5 || got > 7 {
		t.Errorf("%d credentials were made", got)
	}
	b.requireCount("auth/jwt/login", 1)
	if got := b.vault.count("kv/static"); got > 2 {
		t.Errorf("%d reads of the static secret in 5 minutes", got)
	}
}

// Ten pods for ten hours: one login each, and as many reads as the interval says.
func TestStaticSecretsCostWhatTheSettingsSay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const pods, hours = 10, 10
	for i := range pods {
		r := b.request("v"+string(rune('0'+i)), staticTemplate)
		r.PodUID = r.VolumeID
		b.open(r)
	}
	b.pass(hours*time.Hour, func() {})
	b.requireCount("auth/jwt/login", pods)
	// Every 5 min × 0.85 to 0.95: 12.6 to 14.1 times an hour.
	if got := b.vault.count("kv/static"); got < pods*hours*126/10 || got > pods*hours*142/10 {
		t.Errorf("%d reads", got)
	}
	// A third of an hour × 0.75 to 1: 3 to 4 times an hour.
	if got := b.vault.count("auth/token/renew-self"); got < pods*hours*3-pods || got > pods*hours*4 {
		t.Errorf("%d renewals of tokens", got)
	}
	if b.files.writes != 0 {
		t.Errorf("unchanged content was written %d times", b.files.writes)
	}
}

func TestStaticSecretIsReadAtItsInterval(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate, databaseTemplate, `{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`)
	r.Refresh.StaticInterval = time.Minute
	b.vault.change(func() { b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour })
	b.open(r)
	b.vault.change(func() { b.vault.static = "second" })
	b.pass(50*time.Second, func() {})
	if got := b.files.content("v"); !strings.HasPrefix(got, "first|") {
		t.Errorf("before its interval, the file holds %q", got)
	}
	b.pass(10*time.Second, func() {})
	if got := b.files.content("v"); !strings.HasPrefix(got, "second|") {
		t.Errorf("after its interval, the file holds %q", got)
	}
	b.pass(10*time.Minute, func() {})
	// What reading creates is left alone, and so are credentials that are good.
	b.requireCount("database/creds/app", 1)
	b.requireCount("transit/encrypt/app", 1)
}

// A token near its max TTL is replaced, and credentials under it before it ends.
func TestTokenIsReplacedBeforeItsMaxTTL(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*playedVault){
		"renewable":     func(v *playedVault) { v.tokenTTL, v.tokenMax = 10*time.Minute, 30*time.Minute },
		"not renewable": func(v *playedVault) { v.tokenTTL, v.fixedTokens = 30*time.Minute, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vault.change(func() {
				set(b.vault)
				b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour
			})
			r := b.request("v", databaseTemplate)
			r.Files = append(r.Files, FileSpec{Template: Template{Name: "token"}, Token: true})
			b.open(r)
			check := func() {
				username, token, _ := strings.Cut(b.files.content("v"), "|")
				if !b.vault.opens(username) {
					t.Fatalf("dead credentials after %s", b.time.Now().Sub(start))
				}
				b.vault.change(func() {
					if !b.vault.alive(b.vault.tokens[token]) {
						t.Fatalf("the file holds a dead token after %s", b.time.Now().Sub(start))
					}
				})
			}
			b.pass(3*time.Hour, check)
			logins := b.vault.count("auth/jwt/login")
			if logins < 6 || logins > 9 {
				t.Errorf("%d logins in 3 hours, with tokens for half an hour", logins)
			}
			b.requireCount("database/creds/app", logins)
			b.Close("v")
			b.files.remove("v")
			b.vault.awaitNoToken(t)
		})
	}
}

func (v *playedVault) awaitNoToken(t *testing.T) {
	t.Helper()
	waitFor(t, func() bool {
		alive := 0
		v.change(func() {
			for _, token := range v.tokens {
				if v.alive(token) {
					alive++
				}
			}
		})
		return alive == 0
	})
}

// An administrator revokes the token: its leases are gone, and the next renewal
// notices.
func TestRevokedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", databaseTemplate))
	b.vault.change(func() { clear(b.vault.tokens) })
	b.pass(10*time.Second, func() {})
	b.requireOpens("v")
	b.requireCount("auth/jwt/login", 2)
	b.requireCount("database/creds/app", 2)
}

// The login that follows is refused, as of a pod whose service-account token has
// expired; the kubelet brings a new one.
func TestFreshLoginIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", databaseTemplate)
	r.Login.JWT = "old"
	b.vault.change(func() { b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour })
	good := r
	good.Login.JWT = "jwt-1"
	b.open(good)
	b.Republish(r)
	b.vault.change(func() { clear(b.vault.tokens) })
	b.pass(time.Hour, func() {})
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "token is expired") {
		t.Errorf("the volume's error is %v", err)
	}
	good.Login.JWT = "jwt-2"
	b.Republish(good)
	b.settle()
	b.requireOpens("v")
	if status := b.Volumes()[0]; status.Err != nil {
		t.Errorf("the volume's error is %v", status.Err)
	}
	if got := strings.Count(b.logs.String(), "files stay as they are"); got > 2 {
		t.Errorf("the failure is logged %d times", got)
	}
}

func TestRefreshOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", databaseTemplate, staticTemplate)
	r.Refresh.Disabled = true
	b.vault.change(func() { b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour })
	b.open(r)
	before := b.files.content("v")
	b.vault.change(func() { b.vault.static = "second" })
	check := func() {
		if username, _, _ := strings.Cut(b.files.content("v"), "|"); !b.vault.opens(username) {
			t.Fatalf("the credentials died after %s", b.time.Now().Sub(start))
		}
	}
	b.pass(20*time.Hour, check)
	b.Republish(r)
	b.Republish(r)
	b.pass(3*time.Hour, check)
	b.end()
	b.begin()
	b.pass(30*time.Hour, func() {})
	b.requireContent("v", before)
	b.requireCount("database/creds/app", 1)
	b.requireCount("auth/jwt/login", 1)
}
