package provider

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Somebody unmounts a volume, and the kubelet's next call opens it anew. The container
// has the files that it had: what they hold lives on, and is kept alive.
func TestOpenAnewKeepsWhatContainersHold(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		sharing Sharing
		opens   []string // volumes of the pod
	}{
		"the only volume of a pod":    {ShareNothing, []string{"v"}},
		"one of two volumes of a pod": {ShareNothing, []string{"v", "w"}},
		"a volume of shared logins":   {ShareServiceAccount, []string{"v"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.sharing = test.sharing
			b.restart()
			request := func(id string) Request {
				r := b.request(id, databaseTemplate)
				r.Login.ServiceAccount = "default/app"
				return r
			}
			for _, id := range test.opens {
				b.open(request(id))
			}
			held := b.files.content("v")
			logins, tokens, credentials := b.vault.count("auth/jwt/login"), b.vault.aliveTokens(), b.vault.count("database/creds/app")
			b.open(request("v"))
			b.requireContent("v", held)
			// Longer than a lease lasts without a renewal.
			b.pass(40*time.Second, func() {
				if !b.vault.opens(held) {
					t.Fatalf("what the container holds is dead after %s", b.time.Now().Sub(start))
				}
			})
			b.requireCount("auth/jwt/login", logins)
			b.requireCount("database/creds/app", credentials)
			b.requireCount("auth/token/revoke-self", 0)
			b.restart() // the record is there
			b.pass(10*time.Minute, func() { b.requireOpens("v") })
			b.requireCount("auth/jwt/login", logins)
			if got := len(b.Volumes()); got != len(test.opens) || b.vault.aliveTokens() != tokens {
				t.Errorf("%d volumes are open, and %d tokens alive", got, b.vault.aliveTokens())
			}
			for _, id := range test.opens {
				b.Close(id)
			}
			b.vault.awaitNoToken(t)
			waitFor(t, func() bool { records, _ := b.saved.Load(""); return len(records) == 0 })
		})
	}
}

// Where the volume cannot be opened anew, the one before goes on, and the next attempt
// finds it there.
func TestOpenAnewThatFailsLeavesTheVolumeBefore(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", databaseTemplate, staticTemplate)
	b.open(r)
	b.vault.change(func() { b.vault.static = "" })
	for range 3 {
		if _, err := b.Open(t.Context(), r); !errors.Is(err, ErrNotFound) {
			t.Fatalf("it is opened anew with %v", err)
		}
		b.pass(time.Minute, func() {
			username, _, _ := strings.Cut(b.files.content("v"), "|")
			if !b.vault.opens(username) {
				t.Fatalf("the credentials are dead after %s", b.time.Now().Sub(start))
			}
		})
	}
	b.restart() // the record is still there
	if got := len(b.Volumes()); got != 1 {
		t.Errorf("%d volumes are open", got)
	}
	b.vault.change(func() { b.vault.static = "second" })
	b.open(r)
	if _, static, _ := strings.Cut(b.files.content("v"), "|"); static != "second" {
		t.Errorf("the static file holds %q", static)
	}
	b.requireCount("auth/jwt/login", 1)
	b.requireCount("auth/token/revoke-self", 0)
}

// The volume that logs in for others stays the one, with the means of the last call,
// until it is closed for good.
func TestOpenAnewOfTheVolumeThatLogsInForOthers(t *testing.T) {
	t.Parallel()
	b := newSharingBench(t)
	b.open(b.replica(1, staticTemplate))
	r := b.replica(0, staticTemplate)
	b.open(r)
	r.Login.JWT = "jwt-2"
	b.open(r)
	s := b.sessions[mustShare(b, r)]
	if got := s.currentMeans().Login.JWT; got != "jwt-2" || s.bearer != r.VolumeID {
		t.Errorf("opened anew, the session has %q of %s", got, s.bearer)
	}
	b.closeReplica(0)
	if got := s.currentMeans().Login.JWT; got != "jwt-1" || s.bearer != b.replica(1).VolumeID {
		t.Errorf("once it is closed, the session has %q of %s", got, s.bearer)
	}
	b.requireCount("auth/jwt/login", 1)
}

// A refresh that runs would write what the volume before shows into the new one.
func TestOpenAnewWaitsForARefreshThatRuns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", databaseTemplate)
	b.open(r)
	before := b.find("v")
	if err := before.takeTurn(t.Context()); err != nil { // as its refresh does
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Open(ctx, r); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while a refresh runs, it is opened anew with %v", err)
	}
	if b.find("v") != before {
		t.Error("the volume before is not there any more")
	}
	opened := make(chan error, 1)
	go func() {
		_, err := b.Open(t.Context(), r)
		opened <- err
	}()
	before.endTurn()
	if err := <-opened; err != nil || b.find("v") == before {
		t.Errorf("once the refresh is over, it is opened anew with %v", err)
	}
	// And no refresh of the one before begins any more.
	ended, end := context.WithCancel(t.Context())
	end()
	writes := b.files.writes
	before.stale = true
	before.refreshTask(ended)
	if b.files.writes != writes {
		t.Error("the volume before is written again")
	}
}

// The call ends while a refresh of the volume before writes: it is not answered before
// that is over, since old content would come after the new one.
func TestOpenAnewThatIsCutShortWaitsForARefreshThatWrites(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate)
	b.open(r)
	before := b.find("v")
	writes, release := make(chan struct{}), make(chan struct{})
	var isWriting atomic.Bool
	b.files.refuse = func([]RenderedFile) error {
		isWriting.Store(true)
		close(writes)
		<-release
		isWriting.Store(false)
		return nil
	}
	var once sync.Once
	b.vault.engine("kv/static", func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { // the first request is that of the call
			b.schedule.wake(before.task, b.time.Now())
			<-writes
		})
		respond(w, map[string]any{"data": map[string]any{"value": "second"}})
	})
	before.stale, before.written = true, [32]byte{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan bool, 1)
	go func() {
		_, _ = b.Open(ctx, r) // whose call has ended
		opened <- isWriting.Load()
	}()
	waitFor(t, func() bool { b.schedule.mutex.Lock(); defer b.schedule.mutex.Unlock(); return before.task.removed })
	cancel()
	go func() {
		time.Sleep(50 * time.Millisecond) // the call must not end in that time
		close(release)
	}()
	if <-opened {
		t.Error("the call is answered while the refresh writes")
	}
}
