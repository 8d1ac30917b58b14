package provider

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unsafe"

	"k8s.io/utils/clock"
)

// upSince is a node that is up as long as a clock says, however that is set.
type upSince struct {
	clock clock.PassiveClock
	boot  time.Time
}

func (u upSince) Up() (string, time.Duration) { return "boot", u.clock.Since(u.boot) }

// setWall is a time as the wall clock shows it after somebody has set it by whole
// seconds: the monotonic clock, whose reading the time holds as well, goes on. Only
// the machine's own clock could be set to make such a time by other means.
func setWall(t *testing.T, now time.Time, by time.Duration) time.Time {
	t.Helper()
	const secondsBegin = 30 // in the first word of a time.Time that holds both
	set := now
	word := (*uint64)(unsafe.Pointer(&set))
	*word += uint64(by/time.Second) << secondsBegin
	if set.Sub(now) != 0 || set.Round(0).Sub(now.Round(0)) != by {
		t.Fatalf("%s is not %s set by %s", set, now, by)
	}
	return set
}

func (b *bench) setWall(by time.Duration) {
	b.t.Helper()
	b.time.SetTime(setWall(b.t, b.time.Now(), by))
}

func (b *bench) restart() {
	b.t.Helper()
	b.end()
	b.begin()
}

// Somebody sets the node's clock: nothing is due earlier or later than it was.
func TestWallClockIsSet(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"not": 0, "forward": time.Hour, "back": -time.Hour} {
		for when, set := range map[string]func(b *bench){
			"in a process": func(b *bench) { b.setWall(by) },
			"between two processes": func(b *bench) {
				b.end()
				b.setWall(by)
				b.begin()
			},
			// What was resumed is as safe as what is new.
			"in a process that follows another": func(b *bench) {
				b.restart()
				b.setWall(by)
			},
			// The times of this process are from before, its records from after.
			"in a process that another follows": func(b *bench) {
				b.setWall(by)
				b.Republish(b.renewedLogin())
				b.restart()
			},
			"twice": func(b *bench) {
				b.setWall(by)
				b.restart()
				b.setWall(by)
				b.restart()
			},
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				testWallClock(t, set)
			})
		}
	}
}

func testWallClock(t *testing.T, set func(*bench)) {
	b := newBenchAt(t, time.Now())
	b.vault.change(func() { b.vault.tokenTTL = 10 * time.Minute })
	b.open(b.request("v", databaseTemplate, staticTemplate))
	check := func() {
		if username, _, _ := strings.Cut(b.files.content("v"), "|"); !b.vault.opens(username) {
			t.Fatal("the credentials are dead")
		}
	}
	b.pass(time.Minute, check)
	b.vault.change(func() { clear(b.vault.counts) })
	set(b)
	b.settle()
	for _, what := range []string{"auth/jwt/login", "auth/token/renew-self", "sys/leases/renew", "database/creds/app", "kv/static"} {
		b.requireCount(what, 0)
	}
	if all := b.Volumes(); len(all) != 1 || all[0].Refreshed.After(b.time.Now()) || !all[0].Session.Expires.After(b.time.Now()) {
		t.Errorf("the volumes are %+v", all)
	}
	b.pass(30*time.Minute, check)
	b.requireCount("auth/jwt/login", 0)
	// Each 5 min × 0.85 to 0.95, and each 10 min × 0.75/3 to 1/3.
	if got := b.vault.count("kv/static"); got < 6 || got > 8 {
		t.Errorf("%d reads of the static secret in half an hour", got)
	}
	if got := b.vault.count("auth/token/renew-self"); got < 9 || got > 13 {
		t.Errorf("%d renewals of the token", got)
	}
	if got := b.vault.count("database/creds/app"); got < 30 || got > 41 {
		t.Errorf("%d credentials were made", got)
	}
}

// renewedLogin is what has the session saved.
func (b *bench) renewedLogin() Request {
	r := b.request("v", databaseTemplate, staticTemplate)
	r.Login.JWT = "jwt-2"
	return r
}

// While no process ran, time has gone by, and the clock was set so as to hide it.
func TestWallClockHidesWhatIsOverdue(t *testing.T) {
	t.Parallel()
	b := newBenchAt(t, time.Now())
	b.open(b.request("v", staticTemplate))
	b.end()
	b.vault.change(func() { b.vault.static = "second"; clear(b.vault.counts) })
	b.time.Step(10 * time.Minute)
	b.setWall(-10 * time.Minute)
	b.begin()
	b.settle()
	b.requireContent("v", "second")
	b.requireCount("auth/jwt/login", 0)
}

// A token that waits to be revoked has not ended because the clock says so.
func TestWallClockEndsNoRevocation(t *testing.T) {
	t.Parallel()
	b := newBenchAt(t, time.Now())
	b.open(b.request("v", staticTemplate))
	b.vault.change(func() { b.vault.down = true })
	b.Close("v")
	b.files.remove("v")
	waitFor(t, func() bool { return strings.Contains(b.logs.String(), "not revoked yet") })
	b.end()
	b.setWall(2 * time.Hour)
	b.begin()
	waitFor(t, func() bool { return strings.Count(b.logs.String(), "not revoked yet") == 2 })
	b.vault.change(func() { b.vault.down = false })
	b.time.Step(time.Minute) // the next attempt
	b.vault.awaitNoToken(t)
}

// What is known of the boot decides whether the wall clock is trusted.
func TestTimelineTakesOver(t *testing.T) {
	t.Parallel()
	saved := func(boot string, since time.Duration) *moment { return &moment{Wall: start, Boot: boot, Since: since} }
	for name, c := range map[string]struct {
		saved *moment
		boot  Boot
		want  time.Duration // from now; 20 minutes were left
	}{
		"the same boot":                    {saved("a", time.Hour), up{"a", time.Hour + 5*time.Minute}, 15 * time.Minute},
		"the same boot, and overdue":       {saved("a", time.Hour), up{"a", 2 * time.Hour}, -40 * time.Minute},
		"a record of an older program":     {nil, up{"a", time.Hour}, -10 * time.Minute},
		"another boot":                     {saved("b", time.Hour), up{"a", 2 * time.Hour}, -10 * time.Minute},
		"a boot of which nothing is known": {saved("", 0), noBoot{}, -10 * time.Minute},
		"a boot that goes backwards":       {saved("a", 2*time.Hour), up{"a", time.Hour}, -10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBenchAt(t, start.Add(30*time.Minute))
			l := timeline{clock: b.time, boot: c.boot}
			r := &volumeRecord{Refreshed: start.Add(20 * time.Minute), Answers: []answerRecord{{}}, Saved: c.saved}
			l.takeOver(r)
			if got := r.Refreshed.Sub(b.time.Now()); got != c.want {
				t.Errorf("it is due after %s, want %s", got, c.want)
			}
			if !r.Answers[0].Due.IsZero() {
				t.Errorf("what is never due is due at %s", r.Answers[0].Due)
			}
		})
	}
}

type up struct {
	id    string
	since time.Duration
}

func (u up) Up() (string, time.Duration) { return u.id, u.since }

// Vault's own clock is an hour off the node's. What it says of times is how long
// things last; the life of a certificate is from its start to its end. So nothing comes of it.
func TestVaultClockIsOff(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"right": 0, "ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vault.change(func() { b.vault.tokenTTL, b.vault.ahead = 10*time.Minute, ahead })
			b.open(b.request("v", databaseTemplate, staticTemplate, `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`,
				`{{ with secret "pki/issue/app" "common_name=app" }}{{ .Data.certificate }}{{ end }}`))
			check := func() {
				if username, _, _ := strings.Cut(b.files.content("v"), "|"); !b.vault.opens(username) {
					t.Fatal("the credentials are dead")
				}
			}
			b.pass(15*time.Minute, check)
			b.restart()
			b.pass(15*time.Minute, check)
			if err := errors.Join(b.Volumes()[0].Err, b.Volumes()[0].Session.Err); err != nil {
				t.Error(err)
			}
			b.requireCount("auth/jwt/login", 1)
			b.requireCount("database/static-creds/app", 3) // at 0, 10 and 20 minutes
			// Of ten minutes each, and used for nine.
			if got := b.vault.count("pki/issue/app"); got != 4 {
				t.Errorf("%d certificates in half an hour", got)
			}
			if got := b.vault.count("kv/static"); got < 7 || got > 9 {
				t.Errorf("%d reads of the static secret in half an hour", got)
			}
			if got := b.vault.count("auth/token/renew-self"); got < 9 || got > 13 {
				t.Errorf("%d renewals of the token", got)
			}
		})
	}
}
