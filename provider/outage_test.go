package provider

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An outage that outlasts the leases: the last files stay, and once Vault is back
// new credentials come within the longest wait.
func TestOutageLeavesTheFilesAndPasses(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.vault.change(func() { h.vault.leaseMax = 24 * time.Hour })
	h.publish(h.request("v", databaseTemplate, staticTemplate))
	before := h.content("v")
	h.advance(30*time.Second, func() {})
	h.vault.change(func() { h.vault.down = true })
	h.advance(10*time.Minute, func() {})
	if got := h.content("v"); got != before {
		t.Errorf("in the outage, the files changed to %q", got)
	}
	if status := h.statuses()[0]; !errors.Is(status.Err, ErrUnavailable) || status.Next.IsZero() {
		t.Errorf("the status is %+v", status)
	}
	h.vault.change(func() { h.vault.down = false })
	h.advance(time.Minute, func() {})
	username, _, _ := strings.Cut(h.content("v"), "|")
	if !h.vault.opens(username) {
		t.Error("a minute after the outage, the credentials are dead")
	}
	h.requireCount("database/creds/app", 2)
	if status := h.statuses()[0]; status.Err != nil {
		t.Errorf("the volume's error is %v", status.Err)
	}
	if got := strings.Count(h.logs.String(), "Volume refreshed again"); got != 1 {
		t.Errorf("the recovery is logged %d times", got)
	}
}

// One secret that is gone must not stop the rotation of the others.
func TestMissingSecretDoesNotStopCredentials(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", databaseTemplate, staticTemplate))
	h.vault.change(func() { h.vault.static = "" })
	h.advance(20*time.Minute, func() {
		username, static, _ := strings.Cut(h.content("v"), "|")
		if !h.vault.opens(username) || static != "first" {
			t.Fatalf("after %s the file holds %q %q", h.time.Now().Sub(start), username, static)
		}
	})
	if err := h.statuses()[0].Err; !errors.Is(err, ErrNotFound) {
		t.Errorf("the volume's error is %v", err)
	}
}

// A static secret that no longer fits its template keeps its old value, and new
// credentials are written all the same.
func TestTemplateThatNoLongerFits(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.vault.change(func() { h.vault.static = "x:first" })
	h.publish(h.request("v", databaseTemplate, `{{ with secret "kv/static" }}{{ index (.Data.value | split ":") 1 }}{{ end }}`))
	h.vault.change(func() { h.vault.static = "nothing" })
	h.advance(20*time.Minute, func() {
		username, static, _ := strings.Cut(h.content("v"), "|")
		if !h.vault.opens(username) || static != "first" {
			t.Fatalf("after %s the file holds %q %q", h.time.Now().Sub(start), username, static)
		}
	})
	if err := h.statuses()[0].Err; !errors.Is(err, ErrData) {
		t.Errorf("the volume's error is %v", err)
	}
	h.vault.change(func() { h.vault.static = "x:second" })
	h.advance(maxBackoff*5/4, func() {})
	if _, static, _ := strings.Cut(h.content("v"), "|"); static != "second" {
		t.Errorf("corrected, the file holds %q", static)
	}
}

// Content that could not be written is written later, without asking Vault again.
func TestFullVolumeIsWrittenLater(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.fail("v", errors.New("the files do not fit into the volume"))
	h.vault.change(func() { h.vault.static = "second" })
	h.advance(5*time.Minute, func() {})
	h.requireContent("v", "first")
	h.requireCount("kv/static", 2)
	h.end()
	h.fail("v", nil) // before the next process looks, which is at once
	h.begin()        // and it is not forgotten
	h.advance(10*time.Second, func() {})
	h.requireContent("v", "second")
	h.requireCount("kv/static", 2)
}

// A volume that somebody has unmounted is not written, which is no failure, and costs less
// and less. The driver tells it when it is mounted again.
func TestVolumeThatIsNotMounted(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate)
	h.publish(r)
	h.fail("v", ErrClosed)
	h.vault.change(func() { h.vault.static = "second" })
	h.advance(time.Hour, func() {})
	h.requireContent("v", "first")
	m := h.mount("v")
	m.change(func() {
		if m.writes > 40 {
			t.Errorf("in an hour, it was tried %d times", m.writes)
		}
	})
	h.fail("v", nil)
	h.republish(r)
	h.waitIdle()
	h.requireContent("v", "second")
	if strings.Contains(h.logs.String(), "not refreshed") {
		t.Error("it is reported as a failure")
	}
}

// Another program answers in Vault's place, with JSON that Vault's client takes for a
// secret of any path.
func TestFilesOutlastTheAnswersOfAnotherProgram(t *testing.T) {
	t.Parallel()
	for name, restarted := range map[string]bool{"the mount is known": false, "the driver is another": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.vault.change(func() { h.vault.override = upgradedKV(false) })
			h.publish(h.request("v", shownKV))
			h.vault.change(func() {
				h.vault.override = func(w http.ResponseWriter, _ *http.Request) bool {
					_, _ = w.Write([]byte(`{"status":"ok"}`)) // the client is gone
					return true
				}
			})
			if restarted {
				h.end()
				h.begin()
			}
			h.advance(20*time.Minute, func() { h.requireContent("v", ofVersion2) })
			if err := h.statuses()[0].Err; !errors.Is(err, ErrUnavailable) {
				t.Errorf("the volume's error is %v", err)
			}
		})
	}
}

// All files of a volume are in memory before the driver writes them, so their sum is
// bounded while they are made: when a pod starts, with and without secrets, and at a
// refresh, also of a later process.
func TestFilesOverTheSizeOfTheVolume(t *testing.T) {
	t.Parallel()
	static := `{{ "12345" }}` // without secrets
	written := staticTemplate + `{{ "123" | writeToFile "w" "" "" "0644" }}`
	for _, test := range []struct {
		name      string
		templates []string
		most      int64 // with the content "first"
	}{
		{"plain", []string{staticTemplate, staticTemplate}, 10},
		{"without secrets", []string{static, static}, 10},
		{"with a written file", []string{written, staticTemplate}, 13},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			fits := h.request("v", test.templates...)
			fits.Size = test.most
			h.publish(fits)
			large := h.request("w", append(test.templates, static, static, static)...)
			large.Size = test.most - 1
			counted := &countedRenderer{}
			h.Manager.renderer = counted
			_, err := h.tryPublish(t.Context(), large)
			if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), fmt.Sprintf("the size is %d; raise the attribute size", large.Size)) {
				t.Errorf("got %v", err)
			}
			// Once each to find out what they ask, and again with that; none after the one too
			// many.
			if got := counted.runs.Load(); got > 2*2+3 {
				t.Errorf("%d templates ran", got)
			}
		})
	}
	h := newHarness(t)
	fits := h.request("v", staticTemplate)
	fits.Size = 5
	h.publish(fits)
	h.vault.change(func() { h.vault.static = "second" })
	h.end()
	h.begin()
	h.advance(5*time.Minute, func() {})
	h.requireContent("v", "first")
	if err := h.statuses()[0].Err; !errors.Is(err, ErrFull) {
		t.Errorf("the volume's error is %v", err)
	}
}

// requireTold fails the test unless Events tell that often that files became old, and up to
// date again.
func (h *harness) requireTold(volumeID string, failures, recoveries int) {
	h.t.Helper()
	m := h.mount(volumeID)
	m.change(func() {
		if m.failures != failures || m.recoveries != recoveries {
			h.t.Errorf("told are %d failures and %d recoveries, want %d and %d", m.failures, m.recoveries, failures, recoveries)
		}
	})
}

// A restart of the driver makes no file fresh: what fails does so until it was tried
// again and has succeeded, and the clock of the alert goes on.
func TestFailureOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ fail, correct func(h *harness) }{
		"a secret that is gone": {
			func(h *harness) { h.vault.change(func() { h.vault.static = "" }) },
			func(h *harness) { h.vault.change(func() { h.vault.static = "second" }) },
		},
		"Vault away": {
			func(h *harness) { h.vault.change(func() { h.vault.down = true }) },
			func(h *harness) { h.vault.change(func() { h.vault.down, h.vault.static = false, "second" }) },
		},
		"files that cannot be written": {
			func(h *harness) {
				h.fail("v", errors.New("no space"))
				h.vault.change(func() { h.vault.static = "second" })
			},
			func(h *harness) { h.fail("v", nil) },
		},
		"a token that is not replaced": {
			func(h *harness) {
				r := h.request("v", staticTemplate)
				r.Login.JWT = "old"
				h.republish(r)
				h.vault.change(func() { clear(h.vault.tokens) })
			},
			func(h *harness) {
				h.vault.change(func() { h.vault.static = "second" })
				h.republish(h.request("v", staticTemplate))
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.publish(h.request("v", staticTemplate))
			test.fail(h)
			h.advance(30*time.Minute, func() {}) // the token ends later
			before := h.statuses()[0]
			if before.Err == nil {
				t.Fatal("nothing fails, so nothing is tested")
			}
			h.restart()
			for _, pause := range []time.Duration{0, time.Second, time.Minute} {
				if pause > 0 {
					h.advance(pause, func() {})
				}
				now := h.statuses()[0]
				// The next attempt may fail sooner: the new process has to ask for mounts first.
				isToldAlike := pause > 0 || now.Err != nil && now.Err.Error() == before.Err.Error()
				if now.Err == nil || !isToldAlike || !now.Refreshed.Equal(before.Refreshed) {
					t.Errorf("%s after a restart, it was refreshed at %s and its error is %v; before, %s and %v", pause, now.Refreshed, now.Err, before.Refreshed, before.Err)
				}
				if n := h.stats(); n.Failing != 1 || n.OldestFailure < 30*time.Minute {
					t.Errorf("%s after a restart, %d volumes fail, for %s", pause, n.Failing, n.OldestFailure)
				}
			}
			h.requireTold("v", 1, 0)
			test.correct(h)
			h.advance(10*time.Minute, func() {})
			if now := h.statuses()[0]; now.Err != nil || !now.Refreshed.After(before.Refreshed) {
				t.Errorf("corrected, it was refreshed at %s, and its error is %v", now.Refreshed, now.Err)
			}
			h.requireContent("v", "second")
			h.requireTold("v", 1, 1)
		})
	}
}

// What is corrected while no driver runs, or just before, is seen at the next attempt of
// the next process, and told.
func TestFailureEndsWithTheFirstSuccessAfterARestart(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	h.vault.change(func() { h.vault.static = "" })
	h.advance(time.Hour, func() {})
	h.vault.change(func() { h.vault.static = "second" })
	h.restart()
	h.waitIdle()
	h.requireTold("v", 1, 0)
	h.advance(maxBackoff*5/4, func() {})
	h.requireContent("v", "second")
	h.requireTold("v", 1, 1)
}

// A session without a token says so in the next process, which tries at once, and logs it
// once.
func TestFailedLoginOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate)
	h.publish(r)
	r.Login.JWT = "old"
	h.republish(r)
	h.waitIdle()
	h.vault.change(func() { clear(h.vault.tokens) })
	h.advance(time.Hour, func() {})
	h.restart()
	h.waitIdle()
	if got := h.statuses()[0].Session.Err; !errors.Is(got, ErrRefused) {
		t.Errorf("the session's error is %v", got)
	}
	if got := strings.Count(h.logs.String(), "Volume not refreshed"); got != 1 {
		t.Errorf("it was logged %d times", got)
	}
	h.republish(h.request("v", staticTemplate))
	h.advance(time.Second, func() {})
	if n := h.stats(); n.Failing+n.SessionsFailing != 0 || !strings.Contains(h.logs.String(), "Volume refreshed again") {
		t.Errorf("with a good token, there are %+v", n)
	}
}

// An operator who has fixed one thing hears of the next, in the log and by the
// observer; a failure of the same kind is told once.
func TestAnotherKindOfFailureIsTold(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	fail := func(status int) {
		h.vault.engine("kv/", func(w http.ResponseWriter, _ *http.Request) { respondErrors(w, status, "permission denied") })
		h.advance(maxBackoff*3/2, func() {})
	}
	require := func(others, lines int) {
		t.Helper()
		m := h.mount("v")
		m.change(func() {
			if got := strings.Count(h.logs.String(), "Volume not refreshed"); m.failures != 1 || m.changes != others || got != lines {
				t.Errorf("told are %d failures and %d changes, and it is logged %d times; want 1, %d and %d", m.failures, m.changes, got, others, lines)
			}
		})
	}
	h.advance(DefaultInterval, func() {})
	fail(http.StatusNotFound)
	require(0, 1)
	fail(http.StatusNotFound)
	require(0, 1)
	fail(http.StatusForbidden)
	require(1, 2)
	h.restart() // which is no news
	h.advance(time.Minute, func() {})
	require(1, 2)
	fail(http.StatusInternalServerError)
	require(2, 3)
}

// The login of a pod that starts is refused: the call has the error, and nothing is said
// of files, which are not there.
func TestFailedFirstLoginIsNoFailedRenewal(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	r := h.request("v", staticTemplate)
	r.Login.JWT = "old"
	for range 3 {
		if _, err := h.tryPublish(t.Context(), r); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "token is expired") {
			t.Errorf("got %v", err)
		}
	}
	for _, words := range []string{"not renewed", "stay as they are", "not refreshed"} {
		if strings.Contains(h.logs.String(), words) {
			t.Errorf("the log says %q", words)
		}
	}
}

func TestSinkMayAskForTheStatus(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", staticTemplate))
	var heard atomic.Int32
	m := h.mount("v")
	m.change(func() {
		m.heard = func() {
			h.stats()
			heard.Add(1)
		}
	})
	h.advance(DefaultInterval, func() {})
	if heard.Load() == 0 {
		t.Error("it has heard nothing")
	}
}

// shownKV shows what a path holds, and renders without a failure if that is nothing.
const shownKV = `{{ with secret "kv/static" }}{{ range $key, $value := .Data }}{{ $key }} {{ end }}{{ end }}`

const (
	ofVersion1 = "value "         // what shownKV shows before the mount is upgraded
	ofVersion2 = "data metadata " // and after
)

// upgradedKV answers as the mount kv/ does when it is of KV version 2: at the bare
// path there is nothing but a warning.
func upgradedKV(denied bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch path := strings.TrimPrefix(r.URL.Path, "/v1/"); {
		case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
			respond(w, map[string]any{"data": map[string]any{"path": "kv/", "type": "kv", "options": map[string]any{"version": "2"}}})
		case path == "kv/data/static" && denied:
			respondErrors(w, http.StatusForbidden, "permission denied")
		case path == "kv/data/static":
			respond(w, map[string]any{"data": map[string]any{
				"data": map[string]any{"value": "first"}, "metadata": map[string]any{"version": 1},
			}})
		case strings.HasPrefix(path, "kv/"):
			w.WriteHeader(http.StatusNotFound)
			respond(w, map[string]any{"data": nil, "warnings": []string{"Invalid path for a versioned K/V secrets engine."}})
		default:
			return false
		}
		return true
	}
}

// A mount of KV version 1 is upgraded in place. The files show it as it is now, or
// keep what they hold, and never nothing.
func TestFilesOutlastTheUpgradeOfAMount(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) *harness{"read by the pod alone": newHarness, "read for its service account": newSharingHarness} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			request := h.replica(0, shownKV)
			v := request.VolumeID
			h.publish(request)
			h.requireContent(v, ofVersion1)

			h.vault.change(func() { h.vault.override = upgradedKV(true) }) // the policy is for the bare path
			h.advance(20*time.Minute, func() { h.requireContent(v, ofVersion1) })
			if err := h.statuses()[0].Err; !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "read kv/data/static") {
				t.Errorf("the volume's error is %v", err)
			}

			h.vault.change(func() { h.vault.override = upgradedKV(false) })
			h.advance(maxBackoff*5/4, func() {})
			h.requireContent(v, ofVersion2)
			if err := h.statuses()[0].Err; err != nil {
				t.Errorf("the volume's error is %v", err)
			}
		})
	}
}

// Whoever may read the new place sees the secret there at the next refresh.
func TestUpgradeOfAMountIsSeenAtTheNextRefresh(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.publish(h.request("v", shownKV))
	h.vault.change(func() { h.vault.override = upgradedKV(false) })
	h.advance(DefaultInterval, func() {
		if got := h.content("v"); got != ofVersion1 && got != ofVersion2 {
			t.Errorf("the file holds %q", got)
		}
	})
	h.requireContent("v", ofVersion2)
	if strings.Contains(h.logs.String(), "not refreshed") {
		t.Error("it is reported as a failure")
	}
}

// A new process does not know the mount. While Vault does not tell it, the path is
// not taken for one of KV version 1, where there is nothing.
func TestFilesOutlastAProbeThatFails(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.vault.change(func() { h.vault.override = upgradedKV(false) })
	h.publish(h.request("v", shownKV))
	h.requireContent("v", ofVersion2)
	h.end()
	h.vault.change(func() {
		h.vault.override = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/") {
				respondErrors(w, http.StatusInternalServerError, "internal error")
				return true
			}
			return upgradedKV(false)(w, r)
		}
	})
	h.begin()
	h.advance(20*time.Minute, func() { h.requireContent("v", ofVersion2) })
	if err := h.statuses()[0].Err; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the volume's error is %v", err)
	}
	if _, err := h.tryPublish(t.Context(), h.request("other", shownKV)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("another volume opens with %v", err)
	}
	h.vault.change(func() { h.vault.override = upgradedKV(false) })
	h.advance(time.Minute, func() { h.requireContent("v", ofVersion2) })
	if err := h.statuses()[0].Err; err != nil {
		t.Errorf("the volume's error is %v", err)
	}
}
