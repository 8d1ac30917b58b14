package provider

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

func (v *playedVault) aliveTokens() int {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	alive := 0
	for _, token := range v.tokens {
		if v.alive(token) {
			alive++
		}
	}
	return alive
}

// The volumes of a pod log in once, also when the kubelet asks for all of them at
// the same time; the token goes with the last of them.
func TestVolumesOfAPodShareALogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	names := []string{"a", "b", "c", "d", "e", "f"}
	var group sync.WaitGroup
	for _, name := range names {
		group.Go(func() {
			contents, err := b.Open(t.Context(), b.request(name, staticTemplate))
			if err != nil {
				t.Error(err)
			}
			b.files.put(name, contents)
		})
	}
	group.Wait()
	b.requireCount("auth/jwt/login", 1)
	for _, name := range names {
		if got := b.vault.aliveTokens(); got != 1 {
			t.Errorf("before %s is closed, %d tokens are alive", name, got)
		}
		b.Close(name)
	}
	b.vault.awaitNoToken(t)
	if records, _ := b.saved.Load(""); len(records) != 0 {
		waitFor(t, func() bool { records, _ = b.saved.Load(""); return len(records) == 0 })
	}
}

// A token is revoked if any volume of its pod wants that, also by a process that has
// not seen the volume open.
func TestRevocationIsWantedByAnyVolume(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"in one process": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			keep := b.request("keep", staticTemplate)
			keep.Refresh.SkipRevoke = true
			b.open(keep)
			b.open(b.request("revoke", staticTemplate))
			if restart {
				b.end()
				b.begin()
				b.settle()
			}
			b.Close("revoke")
			b.Close("keep")
			b.vault.awaitNoToken(t)
		})
	}
}

func TestNothingElseSharesALogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	change := map[string]func(*Request){
		"same":      func(*Request) {},
		"pod":       func(r *Request) { r.PodUID = "other" },
		"role":      func(r *Request) { r.Login.Role = "other" },
		"audience":  func(r *Request) { r.Login.Audience = "other" },
		"namespace": func(r *Request) { r.Options.Namespace = "other" },
		"approle":   func(r *Request) { r.Login.RoleID = "other" },
		"address":   func(r *Request) { r.Endpoint.Address += "/" },
	}
	for name, change := range change {
		r := b.request(name, "{{ 1 }}")
		change(&r)
		b.open(r)
	}
	b.requireCount("auth/jwt/login", len(change))
}

// Certificates and tokens change during the life of a pod; the session does not.
func TestFreshMeansKeepTheSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate)
	b.open(r)
	r.Login.JWT, r.Endpoint.SkipVerify = "jwt-2", false
	r.Endpoint.CACert = "not in PEM form"
	b.Republish(r)
	b.end()
	b.begin()
	if got := b.sessions[sessionKey(r)].means; got.Login.JWT != "jwt-2" || got.Endpoint.CACert != "not in PEM form" {
		t.Errorf("the next process has %+v", got.Login)
	}
	b.requireCount("auth/jwt/login", 1)
}

// An Open that fails in the end takes its token with it, and under a token that
// other volumes use, its repetition finds the credentials that were made for it.
func TestFailedOpenLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	broken := b.request("broken", databaseTemplate, `{{ with secret "kv/forbidden" }}{{ end }}`)
	if _, err := b.Open(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Fatalf("got %v", err)
	}
	b.vault.awaitNoToken(t)

	b.open(b.request("v", staticTemplate))
	for range 5 {
		if _, err := b.Open(t.Context(), broken); err == nil {
			t.Fatal("it opens")
		}
	}
	b.requireCount("auth/jwt/login", 2)
	b.requireCount("database/creds/app", 2)
	b.time.Step(time.Minute) // the credentials end
	b.settle()
	if _, err := b.Open(t.Context(), broken); err == nil {
		t.Fatal("it opens")
	}
	b.requireCount("database/creds/app", 3)
	if got := len(b.Volumes()); got != 1 {
		t.Errorf("%d volumes are open", got)
	}
}

// A caller that gives up while another volume of the pod logs in does not wait.
func TestOpenHonoursItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	session := b.sessions[sessionKey(b.request("v"))]
	b.vault.change(func() { clear(b.vault.tokens) })
	session.turn <- struct{}{} // somebody logs in for ever
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Open(ctx, b.request("w", staticTemplate)); err == nil {
		t.Error("it did not give up")
	}
	<-session.turn
}

// Close does not wait for a request in progress, and nothing is written after it.
func TestCloseDuringARefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.open(b.request("v", staticTemplate))
	session := b.sessions[sessionKey(b.request("v"))]
	session.turn <- struct{}{}
	b.vault.change(func() { clear(b.vault.tokens); b.vault.static = "second" })
	b.time.Step(DefaultInterval) // the refresh finds the token gone, and waits for its turn
	waitFor(t, func() bool { return b.vault.count("kv/static") == 2 || len(b.Volumes()) == 0 })
	b.Close("v")
	if got := len(b.Volumes()); got != 0 {
		t.Errorf("%d volumes are open", got)
	}
	<-session.turn
	b.end()
	if b.files.writes != 0 {
		t.Error("a closed volume was written")
	}
	if records, _ := b.saved.Load(""); len(records) != 0 {
		t.Errorf("%d records are left", len(records))
	}
	b.begin()
}
