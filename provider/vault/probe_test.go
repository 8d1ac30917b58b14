package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The pods of a node that starts are one question about a mount, unless the token of
// the first may not ask it.
func TestManySessionsProbeOnce(t *testing.T) {
	t.Parallel()
	const sessions = 20
	for name, c := range map[string]struct {
		denied int32 // the first ones
		want   int32
	}{
		"allowed":          {0, 1},
		"the first denied": {1, sessions},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var waiting, probes atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "internal/ui/mounts") {
					_, _ = io.WriteString(w, `{"request_id":"1","data":{"data":{}}}`)
					return
				}
				for waiting.Load() < sessions { // all are there before the first has its answer
					time.Sleep(time.Millisecond)
				}
				if probes.Add(1) <= c.denied {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				_, _ = io.WriteString(w, `{"request_id":"1","data":{"path":"team/kv/","type":"kv","options":{"version":"2"}}}`)
			}))
			t.Cleanup(server.Close)
			servers := NewClientPool(Config{})
			t.Cleanup(servers.Close)
			var group sync.WaitGroup
			for i := range sessions {
				session := resume(t, servers, server.URL, ClientOptions{}, fmt.Sprint("token-", i))
				group.Go(func() {
					waiting.Add(1)
					if _, err := session.Read(t.Context(), fmt.Sprintf("team/kv/app-%d", i)); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if got := probes.Load(); got > c.want || c.denied == 0 && got != 1 {
				t.Errorf("%d probes, want %d", got, c.want)
			}
		})
	}
}

// Who waits for another's probe goes when nobody waits for him any more.
func TestMountOfHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		servers := NewClientPool(Config{})
		session, err := servers.Client(t.Context(), Endpoint{Address: "http://vault:8200"}, ClientOptions{}, Token{Secret: "token"})
		if err != nil {
			t.Fatal(err)
		}
		if _, end := session.server.mounts.begin(place{"", "team"}); end == nil {
			t.Fatal("somebody asks already")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := session.mountOf(ctx, "team/app"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// While Vault does not say of which version a mount is, no path of it is tried: at
// the wrong one, there is nothing.
func TestMountThatIsNotToldIsNoVersion1(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		kind   error // nil for a path that is tried as it is
	}{
		"an error":                     {http.StatusInternalServerError, `{"errors":["internal error"]}`, ErrUnavailable},
		"a rate limit":                 {http.StatusTooManyRequests, `{"errors":["rate limit quota exceeded"]}`, ErrUnavailable},
		"a seal":                       {http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`, ErrUnavailable},
		"an empty answer":              {http.StatusOK, ``, ErrUnavailable},
		"another program":              {http.StatusOK, `{"status":"ok"}`, ErrUnavailable},
		"a token that Vault forgot":    {http.StatusForbidden, `{"errors":["permission denied","invalid token"]}`, ErrTokenGone},
		"a policy without the mount":   {http.StatusForbidden, `{"errors":["preflight capability check returned 403"]}`, nil},
		"a Vault that has no such API": {http.StatusNotFound, `{"errors":[]}`, nil},
		"a gateway that keeps sys/":    {http.StatusNotFound, `<html>Not found</html>`, nil},
	}
	verbs := map[string]func(*Client) error{
		"read":  func(s *Client) error { _, err := s.Read(t.Context(), "kv/data/app"); return err },
		"list":  func(s *Client) error { _, err := s.List(t.Context(), "kv/data/app"); return err },
		"write": func(s *Client) error { _, err := s.Write(t.Context(), "kv/data/app", nil); return err },
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for verb, run := range verbs {
				tried := 0
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/v1/kv/data/app" {
						tried++
						_, _ = io.WriteString(w, `{"request_id":"1","data":{"keys":[]}}`)
						return
					}
					w.WriteHeader(test.status)
					_, _ = io.WriteString(w, test.body)
				}))
				defer server.Close()
				session := resume(t, NewClientPool(Config{}), server.URL, ClientOptions{MaxRetries: NoRetries}, "token")
				if err := run(session); !errors.Is(err, test.kind) {
					t.Errorf("%s: got %v, want %v", verb, err, test.kind)
				}
				if want := test.kind == nil; want != (tried == 1) {
					t.Errorf("%s: the path was tried %d times", verb, tried)
				}
			}
		})
	}
}
