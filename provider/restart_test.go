package provider

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// A new process goes on with Vault away: no login, no read, and the files stay.
func TestResumeNeedsNoVault(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", databaseTemplate, staticTemplate))
	before := b.files.content("v")
	b.end()
	b.vault.change(func() { b.vault.down = true; clear(b.vault.counts) })
	b.begin()
	b.settle()
	if got := len(b.Volumes()); got != 1 {
		t.Fatalf("%d volumes are open", got)
	}
	b.Republish(b.request("v", databaseTemplate, staticTemplate))
	b.pass(10*time.Second, func() {})
	if got := b.files.content("v"); got != before {
		t.Errorf("the file holds %q", got)
	}
	b.vault.change(func() { b.vault.down = false })
	b.pass(time.Minute, func() {})
	if username, _, _ := strings.Cut(b.files.content("v"), "|"); !b.vault.opens(username) {
		t.Error("a minute after the outage, the credentials are dead")
	}
	b.requireCount("auth/jwt/login", 0)
	b.requireCount("kv/static", 0)
}

// An upgrade may read the attributes of a volume as other files. The driver expects those
// of the last republish, whatever the record says, and the volume keeps its token.
func TestRepublishWithOtherFiles(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	before := b.files.content("v")
	b.end()
	b.begin()
	for range 2 { // the second process reads what the first has saved
		b.Republish(b.request("v", staticTemplate, staticTemplate))
		b.pass(10*time.Second, func() {})
		if got := b.files.content("v"); got != before+"|"+before {
			t.Errorf("the files hold %q, and one of them %q", got, before)
		}
		b.end()
		b.begin()
	}
	b.requireCount("auth/jwt/login", 1)
}

// Files that are written once do not fail for want of a token that keeps nothing of
// them alive, also not when a new process looks at them. Credentials in them have ended
// with it.
func TestRefreshOffOutlivesItsToken(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		template string
		want     error
	}{
		"a static secret": {staticTemplate, nil},
		"credentials":     {databaseTemplate, errKept},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vault.change(func() { b.vault.tokenMax = 2 * time.Hour; b.vault.leaseTTL, b.vault.leaseMax = time.Hour, 24*time.Hour })
			r := b.request("v", test.template)
			r.Refresh.Disabled = true
			b.open(r)
			require := func(when string) {
				t.Helper()
				status := b.Volumes()[0]
				if !errors.Is(status.Err, test.want) || status.Next.IsZero() != (test.want == nil) {
					t.Errorf("%s, its error is %v, and it is looked at next at %s", when, status.Err, status.Next)
				}
			}
			b.pass(5*time.Hour, func() {})
			require("in the process that wrote it")
			b.end()
			b.begin()
			b.pass(time.Hour, func() {})
			require("after a restart")
			b.requireCount("auth/jwt/login", 1)
		})
	}
}

// What waits for Vault when the process ends is revoked by the next.
func TestRevocationsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.vault.change(func() { b.vault.down = true })
	b.Close("v")
	b.files.remove("v")
	b.end()
	b.begin()
	if got := b.vault.aliveTokens(); got != 1 {
		t.Fatalf("%d tokens are alive, so nothing is tested", got)
	}
	b.vault.change(func() { b.vault.down = false })
	b.time.Step(time.Minute) // the next attempt
	b.vault.awaitNoToken(t)
	waitFor(t, func() bool { records, _ := b.saved.Load(""); return len(records) == 0 })
}

// An outage of Vault longer than the token's TTL ends the attempts.
func TestRevocationEndsWithTheToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.vault.change(func() { b.vault.down = true })
	b.Close("v")
	for range 10 {
		b.time.Step(10 * time.Minute)
	}
	waitFor(t, func() bool { records, _ := b.saved.Load(""); return len(records) == 0 })
}

// The pod was deleted while no driver ran.
func TestResumeGivesUpWhatIsNotThere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.open(b.request("w", staticTemplate))
	b.end()
	b.files.remove("v")
	b.begin()
	if all := b.Volumes(); len(all) != 1 || all[0].VolumeID != "w" || b.vault.aliveTokens() != 1 {
		t.Errorf("after one went, the volumes are %v", all)
	}
	b.end()
	b.files.remove("w")
	b.begin()
	b.vault.awaitNoToken(t)
}

// State that cannot be read costs one login for each pod, and no outage.
func TestUnreadableStateCostsALogin(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"garbage":   func([]byte) []byte { return []byte("\x00garbage") },
		"truncated": func(record []byte) []byte { return record[:len(record)/2] },
		"empty":     func([]byte) []byte { return nil },
		"newer": func(record []byte) []byte {
			return []byte(strings.Replace(string(record), `"Version":2`, `"Version":99`, 1))
		},
		"other": func([]byte) []byte { return []byte(`{"Version":2}`) },
	} {
		for _, prefix := range []string{volumePrefix, sessionPrefix} {
			t.Run(name+" "+prefix, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				r := b.request("v", staticTemplate)
				b.open(r)
				b.end()
				b.saved.change(prefix, damage)
				b.begin()
				if got := len(b.Volumes()); got != 0 {
					t.Errorf("%d volumes are resumed", got)
				}
				b.vault.change(func() { b.vault.static = "second" })
				b.Republish(r)
				b.pass(adoptSpread, func() {})
				b.requireContent("v", "second")
				b.requireCount("auth/jwt/login", 2)
				if prefix == volumePrefix {
					waitFor(t, func() bool { return b.vault.aliveTokens() == 1 })
				}
				b.Close("v")
				b.files.remove("v")
			})
		}
	}
}

// A full store does not keep volumes from working; what it costs is logged once.
func TestFullStore(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.saved.full = true
	b.open(b.request("v", databaseTemplate))
	b.pass(5*time.Minute, func() { b.requireOpens("v") })
	if got := strings.Count(b.logs.String(), "State not saved"); got != 1 {
		t.Errorf("it is logged %d times", got)
	}
}

// A volume that is not refreshed is not read again either, whatever was lost.
func TestUnreadableStateOfAVolumeThatIsNotRefreshed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate)
	r.Refresh.Disabled = true
	b.open(r)
	b.end()
	b.saved.change("", func([]byte) []byte { return nil })
	b.begin()
	b.Republish(r)
	b.pass(time.Hour, func() {})
	b.requireCount("auth/jwt/login", 1)
	b.Close("v") // which is fine
}

// An adopted volume tries until Vault answers.
func TestAdoptionDuringAnOutage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.files.put("v", []RenderedFile{{Content: []byte("first")}})
	b.vault.change(func() { b.vault.down = true })
	b.Republish(b.request("v", staticTemplate))
	b.pass(10*time.Minute, func() {})
	if err := b.Volumes()[0].Err; !errors.Is(err, ErrUnavailable) {
		t.Errorf("its error is %v", err)
	}
	b.vault.change(func() { b.vault.down = false; b.vault.static = "second" })
	b.pass(time.Minute, func() {})
	b.requireContent("v", "second")
}

// A tenant's volume with large secrets and many computed paths took half a minute of
// CPU time at each start.
func TestResumeIsLinear(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	big := strings.Repeat("v-é-", 256<<10)
	b.vault.change(func() {
		b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/kv/big") {
				respond(w, map[string]any{"data": map[string]any{"value": big}})
				return true
			}
			return false
		}
	})
	b.open(b.request("v", `{{ with secret "kv/big-1" }}{{ with secret "kv/big-2" }}{{ range $i := loop 900 }}{{ with secret (printf "kv/static?x=%d" $i) }}.{{ end }}{{ end }}{{ end }}{{ end }}`))
	b.end()
	b.start()
	took := cost.Measure(func() {
		if err := b.Resume(t.Context(), b.files.has); err != nil {
			t.Error(err)
		}
	}).CPU
	t.Logf("took %s", took)
	if took > 2*time.Second {
		t.Errorf("the records of one volume took %s of CPU time", took)
	}
	if got := len(b.Volumes()); got != 1 || len(b.Volumes()[0].Secrets) != 902 {
		t.Errorf("%d volumes are resumed", got)
	}
}

// A process that is told to stop while it starts leaves the records to the next one.
func TestResumeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	b.end()
	b.start()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Resume(ctx, b.files.has); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.end()
	b.begin()
	if got := len(b.Volumes()); got != 1 {
		t.Errorf("%d volumes are resumed", got)
	}
	b.requireCount("auth/jwt/login", 1)
}
