package vault

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

// resume returns a session with a server that a handler plays.
func resume(t *testing.T, servers *Servers, address string, options Options, token string) *Session {
	t.Helper()
	session, err := servers.Resume(t.Context(), Endpoint{Address: address}, options, Token{Secret: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

// Sessions have copies of one client, and nothing of each other.
func TestSessionsShareNothing(t *testing.T) {
	t.Parallel()
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		w.Header().Set("X-Vault-Index", base64.StdEncoding.EncodeToString([]byte("v1:cluster:1:0:00")))
		fmt.Fprint(w, `{"request_id":"1","data":{"keys":["key"]}}`)
	}))
	t.Cleanup(server.Close)
	servers := NewServers(klog.Background(), time.Now)
	t.Cleanup(servers.Close)
	servers.mountsOf(t, server.URL, "a", "")
	first := resume(t, servers, server.URL, Options{Namespace: "a"}, "token-1")
	second := resume(t, servers, server.URL, Options{}, "token-2")

	for i, test := range []struct {
		session          *Session
		token, namespace string
		again            bool
	}{
		{first, "token-1", "a", false},
		{second, "token-2", "", false},
		{first, "token-1", "a", true},
	} {
		if _, err := test.session.List(t.Context(), "kv"); err != nil {
			t.Fatal(err)
		}
		if got := seen.Get("X-Vault-Token"); got != test.token {
			t.Errorf("request %d: token %q, want %q", i, got, test.token)
		}
		if got := seen.Get("X-Vault-Namespace"); got != test.namespace {
			t.Errorf("request %d: namespace %q, want %q", i, got, test.namespace)
		}
		if got := seen.Get("X-Vault-Index") != ""; got != test.again {
			t.Errorf("request %d: it wants what its session has seen: %t, want %t", i, got, test.again)
		}
	}
}

// mountsOf has a mount known in namespaces, so that each call is one request.
func (s *Servers) mountsOf(t *testing.T, address string, namespaces ...string) {
	t.Helper()
	used, err := s.acquire(t.Context(), Endpoint{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.release(used) })
	for _, namespace := range namespaces {
		used.mounts.remember(mount{namespace: namespace, path: "kv/", version: "1"})
	}
}

// In each namespace, a mount may be of another version.
func TestMountsOfNamespaces(t *testing.T) {
	t.Parallel()
	var probes atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		namespace, isProbe := r.Header.Get("X-Vault-Namespace"), r.URL.Path == "/v1/sys/internal/ui/mounts/kv/app"
		switch {
		case isProbe && namespace == "second":
			probes.Add(1)
			fmt.Fprint(w, `{"request_id":"1","data":{"path":"kv/","options":{"version":"2"}}}`)
		case isProbe:
			probes.Add(1)
			fmt.Fprint(w, `{"request_id":"1","data":{"path":"kv/","options":{"version":"1"}}}`)
		default:
			fmt.Fprintf(w, `{"request_id":"1","data":{"path":%q}}`, r.URL.Path)
		}
	}))
	t.Cleanup(server.Close)
	servers := NewServers(klog.Background(), time.Now)
	t.Cleanup(servers.Close)
	for range 2 {
		for namespace, want := range map[string]string{"first": "/v1/kv/app", "second": "/v1/kv/data/app"} {
			session := resume(t, servers, server.URL, Options{Namespace: namespace}, "token")
			secret, err := session.Read(t.Context(), "kv/app")
			if err != nil || secret.Data["path"] != want {
				t.Errorf("in namespace %s: read %v, %v, want %s", namespace, secret, err, want)
			}
		}
	}
	if got := probes.Load(); got != 2 {
		t.Errorf("%d probes for the mount of two namespaces", got)
	}
}
