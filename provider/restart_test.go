package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// A new process goes on with Vault away: no login, no read, and the files stay.
func TestResumeNeedsNoVault(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", databaseTemplate, staticTemplate))
	before := h.content("v")
	h.end()
	h.vault.change(func() { h.vault.down = true; clear(h.vault.counts) })
	h.begin()
	h.waitIdle()
	if got := len(h.statuses()); got != 1 {
		t.Fatalf("%d volumes are open", got)
	}
	h.republish(h.request("v", databaseTemplate, staticTemplate))
	h.advance(10*time.Second, func() {})
	if got := h.content("v"); got != before {
		t.Errorf("the file holds %q", got)
	}
	h.vault.change(func() { h.vault.down = false })
	h.advance(time.Minute, func() {})
	if username, _, _ := strings.Cut(h.content("v"), "|"); !h.vault.opens(username) {
		t.Error("a minute after the outage, the credentials are dead")
	}
	h.requireCount("auth/jwt/login", 0)
	h.requireCount("kv/static", 0)
}

// An upgrade may read the attributes of a volume as other files. The driver expects those
// of the last republish, whatever the record says, and the volume keeps its token.
func TestRepublishWithOtherFiles(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	before := h.content("v")
	h.end()
	h.begin()
	for range 2 { // the second process reads what the first has saved
		h.republish(h.request("v", staticTemplate, staticTemplate))
		h.advance(10*time.Second, func() {})
		if got := h.content("v"); got != before+"|"+before {
			t.Errorf("the files hold %q, and one of them %q", got, before)
		}
		h.end()
		h.begin()
	}
	h.requireCount("auth/jwt/login", 1)
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
		"credentials":     {databaseTemplate, errTokenEnded},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.vault.change(func() { h.vault.tokenMax = 2 * time.Hour; h.vault.leaseTTL, h.vault.leaseMax = time.Hour, 24*time.Hour })
			r := h.request("v", test.template)
			r.Refresh.Disabled = true
			h.publish(r)
			require := func(when string) {
				t.Helper()
				status := h.statuses()[0]
				if !errors.Is(status.Err, test.want) || status.Next.IsZero() != (test.want == nil) {
					t.Errorf("%s, its error is %v, and it is looked at next at %s", when, status.Err, status.Next)
				}
			}
			h.advance(5*time.Hour, func() {})
			require("in the process that wrote it")
			h.end()
			h.begin()
			h.advance(time.Hour, func() {})
			require("after a restart")
			h.requireCount("auth/jwt/login", 1)
		})
	}
}

// What waits for Vault when the process ends is revoked by the next.
func TestRevocationsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.vault.change(func() { h.vault.down = true })
	h.close("v")
	h.end()
	h.begin()
	if got := h.vault.aliveTokens(); got != 1 {
		t.Fatalf("%d tokens are alive, so nothing is tested", got)
	}
	h.vault.change(func() { h.vault.down = false })
	h.time.Step(time.Minute) // the next attempt
	h.vault.awaitNoToken(t)
	h.awaitNoRecord()
}

// An outage of Vault longer than the token's TTL ends the attempts.
func TestRevocationEndsWithTheToken(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.vault.change(func() { h.vault.down = true })
	h.close("v")
	for range 10 {
		h.time.Step(10 * time.Minute)
	}
	h.awaitNoRecord()
}

// The pod was deleted while no driver ran: the driver restores the volume, and closes it.
func TestVolumeThatIsGoneAfterARestart(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.publish(h.request("w", staticTemplate))
	h.restart()
	h.close("v")
	waitFor(t, func() bool { return h.vault.aliveTokens() == 1 })
	if all := h.statuses(); len(all) != 1 || all[0].VolumeID != "w" {
		t.Errorf("the volumes are %v", all)
	}
	h.close("w")
	h.vault.awaitNoToken(t)
}

// A record that cannot be read costs one login, and no outage.
func TestUnreadableRecordCostsALogin(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"garbage":   func([]byte) []byte { return []byte("\x00garbage") },
		"truncated": func(record []byte) []byte { return record[:len(record)/2] },
		"empty":     func([]byte) []byte { return []byte{} },
		"newer": func(record []byte) []byte {
			return []byte(strings.Replace(string(record), fmt.Sprintf(`"Version":%d`, recordVersion), `"Version":99`, 1))
		},
		"other": func([]byte) []byte { return []byte(fmt.Sprintf(`{"Version":%d}`, recordVersion)) },
		"large": func(record []byte) []byte { return append(record, make([]byte, limits.CheckpointBytes.Max())...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			r := h.request("v", staticTemplate)
			h.publish(r)
			h.publish(h.request("other", staticTemplate))
			h.end()
			m := h.mount("v")
			m.change(func() { m.record = damage(m.record) })
			h.begin()
			if all := h.statuses(); len(all) != 1 || all[0].VolumeID != "other" {
				t.Errorf("restored are %v", all)
			}
			h.vault.change(func() { h.vault.static = "second" })
			h.republish(r)
			h.advance(takeOverSpread, func() {})
			h.requireContent("v", "second")
			h.requireCount("auth/jwt/login", 3)
		})
	}
}

// A full store does not keep volumes from working; what it costs is logged once.
func TestFullStore(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.mount("v").isFull = true
	h.publish(h.request("v", databaseTemplate))
	h.advance(5*time.Minute, func() { h.requireOpens("v") })
	if got := strings.Count(h.logs.String(), "Volume not saved"); got != 1 {
		t.Errorf("it is logged %d times", got)
	}
}

// A volume that is not refreshed is not read again either, whatever was lost.
func TestUnreadableStateOfAVolumeThatIsNotRefreshed(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate)
	r.Refresh.Disabled = true
	h.publish(r)
	h.end()
	h.mount("v").record = nil
	h.begin()
	h.republish(r)
	h.advance(time.Hour, func() {})
	h.requireCount("auth/jwt/login", 1)
	h.close("v") // which is fine
}

// A volume that is taken over tries until Vault answers.
func TestTakeOverDuringAnOutage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.mount("v").put([]RenderedFile{{Content: []byte("first")}})
	h.vault.change(func() { h.vault.down = true })
	h.republish(h.request("v", staticTemplate))
	h.advance(10*time.Minute, func() {})
	if err := h.statuses()[0].Err; !errors.Is(err, ErrUnavailable) {
		t.Errorf("its error is %v", err)
	}
	h.vault.change(func() { h.vault.down = false; h.vault.static = "second" })
	h.advance(time.Minute, func() {})
	h.requireContent("v", "second")
}

// A tenant's volume with large secrets and many computed paths took half a minute of
// CPU time at each start.
func TestResumeIsLinear(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	big := strings.Repeat("v-é-", 256<<10)
	h.vault.change(func() {
		h.vault.override = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/kv/big") {
				respond(w, map[string]any{"data": map[string]any{"value": big}})
				return true
			}
			return false
		}
	})
	h.publish(h.request("v", `{{ with secret "kv/big-1" }}{{ with secret "kv/big-2" }}{{ range $i := loop 900 }}{{ with secret (printf "kv/static?x=%d" $i) }}.{{ end }}{{ end }}{{ end }}{{ end }}`))
	h.end()
	h.start()
	took := cost.Measure(func() { h.restore(h.mount("v")) }).CPU
	t.Logf("took %s", took)
	if took > 2*time.Second {
		t.Errorf("the records of one volume took %s of CPU time", took)
	}
	if got := len(h.statuses()); got != 1 || len(h.statuses()[0].Secrets) != 902 {
		t.Errorf("%d volumes are resumed", got)
	}
}

// A process that is told to stop while it starts leaves the records to the next one.
func TestResumeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.vault.change(func() { h.vault.down = true })
	h.close("v")
	h.end()
	h.start()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.RestoreSessions(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	h.end()
	h.vault.change(func() { h.vault.down = false })
	h.begin()
	h.time.Step(time.Minute)
	h.vault.awaitNoToken(t)
}
