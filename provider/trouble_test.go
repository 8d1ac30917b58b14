package provider

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// changes are how often files became old, and fresh again: what Events tell of.
type changes struct {
	nobody

	mutex      sync.Mutex
	old, fresh int
	// others are how often the reason became another one.
	others int
}

// Refreshed implements Observer.
func (c *changes) Refreshed(_ string, before, now error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch {
	case before == nil && now != nil:
		c.old++
	case before != nil && now == nil:
		c.fresh++
	case !SameKind(before, now):
		c.others++
	}
}

func (c *changes) require(t *testing.T, old, fresh int) {
	t.Helper()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.old != old || c.fresh != fresh {
		t.Errorf("the files became old %d times, and fresh %d times; want %d and %d", c.old, c.fresh, old, fresh)
	}
}

func (b *bench) observe() *changes {
	b.t.Helper()
	seen := &changes{}
	b.observer = seen
	b.restart()
	return seen
}

// A restart of the driver makes no file fresh: what fails does so until it was tried
// again and has succeeded, and the clock of the alert goes on.
func TestFailureOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ fail, mend func(b *bench) }{
		"a secret that is gone": {
			func(b *bench) { b.vault.change(func() { b.vault.static = "" }) },
			func(b *bench) { b.vault.change(func() { b.vault.static = "second" }) },
		},
		"Vault away": {
			func(b *bench) { b.vault.change(func() { b.vault.down = true }) },
			func(b *bench) { b.vault.change(func() { b.vault.down, b.vault.static = false, "second" }) },
		},
		"files that cannot be written": {
			func(b *bench) {
				b.files.fail(errors.New("no room"))
				b.vault.change(func() { b.vault.static = "second" })
			},
			func(b *bench) { b.files.fail(nil) },
		},
		"a token that is not replaced": {
			func(b *bench) {
				r := b.request("v", staticTemplate)
				r.Login.JWT = "old"
				b.Republish(r)
				b.vault.change(func() { clear(b.vault.tokens) })
			},
			func(b *bench) {
				b.vault.change(func() { b.vault.static = "second" })
				b.Republish(b.request("v", staticTemplate))
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			seen := b.observe()
			b.open(b.request("v", staticTemplate))
			test.fail(b)
			b.pass(30*time.Minute, func() {}) // the token ends later
			before := b.Volumes()[0]
			if before.Err == nil {
				t.Fatal("nothing fails, so nothing is tested")
			}
			b.restart()
			for _, pause := range []time.Duration{0, time.Second, time.Minute} {
				if pause > 0 {
					b.pass(pause, func() {})
				}
				now := b.Volumes()[0]
				// The next attempt may fail sooner: the new process has to ask for mounts first.
				isToldAlike := pause > 0 || now.Err != nil && now.Err.Error() == before.Err.Error()
				if now.Err == nil || !isToldAlike || !now.Refreshed.Equal(before.Refreshed) {
					t.Errorf("%s after a restart, it was refreshed at %s and its error is %v; before, %s and %v", pause, now.Refreshed, now.Err, before.Refreshed, before.Err)
				}
				if n := b.Numbers(); n.Failing != 1 || n.OldestFailure < 30*time.Minute {
					t.Errorf("%s after a restart, %d volumes fail, for %s", pause, n.Failing, n.OldestFailure)
				}
			}
			seen.require(t, 1, 0)
			test.mend(b)
			b.pass(10*time.Minute, func() {})
			if now := b.Volumes()[0]; now.Err != nil || !now.Refreshed.After(before.Refreshed) {
				t.Errorf("mended, it was refreshed at %s, and its error is %v", now.Refreshed, now.Err)
			}
			b.requireContent("v", "second")
			seen.require(t, 1, 1)
		})
	}
}

// What is mended while no driver runs, or just before, is seen at the next attempt of
// the next process, and told.
func TestFailureEndsWithTheFirstSuccessAfterARestart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seen := b.observe()
	b.open(b.request("v", staticTemplate))
	b.vault.change(func() { b.vault.static = "" })
	b.pass(time.Hour, func() {})
	b.vault.change(func() { b.vault.static = "second" })
	b.restart()
	b.settle()
	seen.require(t, 1, 0)
	b.pass(longestBackoff*5/4, func() {})
	b.requireContent("v", "second")
	seen.require(t, 1, 1)
}

// A session that got no token says so in the next process, which tries at once, and
// logs it once.
func TestSessionTroubleOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate)
	b.open(r)
	r.Login.JWT = "old"
	b.Republish(r)
	b.vault.change(func() { clear(b.vault.tokens) })
	b.pass(time.Hour, func() {})
	b.restart()
	b.settle()
	if got := b.Volumes()[0].Session.Err; !errors.Is(got, ErrRefused) {
		t.Errorf("the session's error is %v", got)
	}
	if got := strings.Count(b.logs.String(), "Vault token not renewed"); got != 1 {
		t.Errorf("it was logged %d times", got)
	}
	b.Republish(b.request("v", staticTemplate))
	b.pass(time.Second, func() {})
	if n := b.Numbers(); n.Failing+n.SessionsFailing != 0 || !strings.Contains(b.logs.String(), "Vault token renewed again") {
		t.Errorf("with a good token, there are %+v", n)
	}
}

// An operator who has fixed one thing hears of the next, in the log and by the
// observer; a failure of the same kind is told once.
func TestAnotherKindOfFailureIsTold(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	seen := b.observe()
	b.open(b.request("v", staticTemplate))
	fail := func(status int) {
		b.vault.engine("kv/", func(w http.ResponseWriter, _ *http.Request) { respondErrors(w, status, "permission denied") })
		b.pass(longestBackoff*3/2, func() {})
	}
	require := func(others, lines int) {
		t.Helper()
		seen.mutex.Lock()
		defer seen.mutex.Unlock()
		if got := strings.Count(b.logs.String(), "Volume not refreshed"); seen.old != 1 || seen.others != others || got != lines {
			t.Errorf("it became old %d times, for another reason %d times, and is logged %d times; want 1, %d and %d", seen.old, seen.others, got, others, lines)
		}
	}
	b.pass(DefaultInterval, func() {})
	fail(http.StatusNotFound)
	require(0, 1)
	fail(http.StatusNotFound)
	require(0, 1)
	fail(http.StatusForbidden)
	require(1, 2)
	b.restart() // which is no news
	b.pass(time.Minute, func() {})
	require(1, 2)
	fail(http.StatusInternalServerError)
	require(2, 3)
}

// The login of a pod that starts is refused: the call has the error, and nothing is said
// of files, which are not there.
func TestFailedFirstLoginIsNoFailedRenewal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate)
	r.Login.JWT = "old"
	for range 3 {
		if _, err := b.Open(t.Context(), r); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "token is expired") {
			t.Errorf("got %v", err)
		}
	}
	for _, words := range []string{"not renewed", "stay as they are", "not refreshed"} {
		if strings.Contains(b.logs.String(), words) {
			t.Errorf("the log says %q", words)
		}
	}
}

// observing asks for the status when it hears something.
type observing struct {
	nobody

	provider *Provider
	heard    atomic.Int32
}

// Refreshed implements Observer.
func (o *observing) Refreshed(string, error, error) {
	o.provider.Volumes()
	o.provider.Numbers()
	o.heard.Add(1)
}

func TestObserverMayAskForTheStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o := &observing{provider: b.Provider}
	b.Provider.observer = o
	b.open(b.request("v", staticTemplate))
	b.pass(DefaultInterval, func() {})
	if o.heard.Load() == 0 {
		t.Error("it has heard nothing")
	}
}
