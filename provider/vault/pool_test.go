package vault

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

// newClockedPool returns a pool whose time is the test's.
func newClockedPool() (pool *ClientPool, advance func(time.Duration)) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	pool = NewClientPool(Config{})
	pool.now = func() time.Time { return now }
	return pool, func(d time.Duration) { now = now.Add(d) }
}

func endpointOf(i int) Endpoint {
	return Endpoint{Address: "https://vault:8200", ServerName: fmt.Sprint(i)}
}

// use returns the shared part of the clients that a namespace uses.
func (p *ClientPool) use(t *testing.T, namespace string, endpoint Endpoint) *endpointClient {
	t.Helper()
	used, err := p.get(fairqueue.WithTenant(t.Context(), namespace), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// Pods that bring their own certificates must not make the driver keep a transport for
// each pod that ever was.
func TestPoolEvictsEndpoints(t *testing.T) {
	t.Parallel()
	pool, advance := newClockedPool()
	first := pool.use(t, "a", endpointOf(0))
	pool.use(t, "b", endpointOf(0)) // it is shared now
	for i := range 2 * maxEndpoints {
		advance(time.Millisecond)
		pool.use(t, "", endpointOf(i))
	}
	if got := len(pool.endpoints); got != maxEndpoints {
		t.Errorf("%d endpoints are kept, want %d", got, maxEndpoints)
	}
	if pool.endpoints[endpointOf(maxEndpoints-1)] != nil || pool.endpoints[endpointOf(maxEndpoints)] == nil {
		t.Error("the least recently used endpoints are not the ones that are gone")
	}
	again := pool.use(t, "a", endpointOf(0))
	if again == first || again.limiter != first.limiter {
		t.Error("the endpoint was not evicted, or the limit of requests in flight is not that of its address")
	}
	advance(idleTTL - time.Second)
	pool.use(t, "a", endpointOf(0))
	advance(time.Second)
	if pool.BreakerOpen(); len(pool.endpoints) != 1 || pool.endpoints[endpointOf(0)] != again {
		t.Errorf("after %s, %d endpoints are kept, want the one that was just used", idleTTL, len(pool.endpoints))
	}
}

// A namespace that names a new address each time leaves nothing behind, and does not
// evict what others know of their Vaults.
func TestNamespaceFloodsWithAddresses(t *testing.T) {
	t.Parallel()
	pool, advance := newClockedPool()
	const ofVictim = maxEndpointsOfNamespace / 2
	for i := range ofVictim {
		pool.use(t, "victim", endpointOf(i))
	}
	for i := range 3 * maxEndpointsOfNamespace {
		advance(time.Millisecond)
		pool.use(t, "evil", Endpoint{Address: fmt.Sprintf("https://%d.tenants.example.com", i)})
	}
	for i := range ofVictim {
		if pool.endpoints[endpointOf(i)] == nil {
			t.Errorf("endpoint %d of another namespace is gone", i)
		}
	}
	if got, want := len(pool.endpoints), ofVictim+maxEndpointsOfNamespace; got != want {
		t.Errorf("%d endpoints are kept, want %d", got, want)
	}
	advance(idleTTL)
	if pool.BreakerOpen(); len(pool.endpoints) != 0 {
		t.Errorf("in the end, %d endpoints are kept", len(pool.endpoints))
	}
}

// Only a request closes a breaker, so that of an endpoint that nobody uses stays open.
func TestBreakerOpenLeavesOutWhatNobodyUses(t *testing.T) {
	t.Parallel()
	const address = "http://127.0.0.1:1"
	pool, advance := newClockedPool()
	for range failuresToOpen {
		_, _ = pool.Login(t.Context(), Endpoint{Address: address}, ClientOptions{MaxRetries: NoRetries}, Credentials{Mount: "auth/jwt"})
	}
	advance(idleTTL - time.Second)
	if !pool.BreakerOpen()[address] {
		t.Error("no breaker is open after an outage")
	}
	advance(time.Second)
	if open := pool.BreakerOpen(); len(open) != 0 {
		t.Errorf("later, the breakers are %v", open)
	}
}

// startVault starts a Vault whose mounts no token may read, and returns its address. The
// handler answers all other requests.
func startVault(t *testing.T, handle http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "internal/ui/mounts") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		handle(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// newTestClient returns a client for a token.
func newTestClient(t *testing.T, pool *ClientPool, address string, options ClientOptions, token string) *Client {
	t.Helper()
	client, err := pool.Client(t.Context(), Endpoint{Address: address}, options, Token{Secret: token})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestClientsShareNoTokenNamespaceOrState(t *testing.T) {
	t.Parallel()
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		w.Header().Set("X-Vault-Index", base64.StdEncoding.EncodeToString([]byte("v1:cluster:1:0:00")))
		fmt.Fprint(w, `{"request_id":"1","data":{"keys":["key"]}}`)
	}))
	t.Cleanup(server.Close)
	pool := NewClientPool(Config{})
	t.Cleanup(pool.Close)
	pool.mountsOf(t, server.URL, "a", "")
	first := newTestClient(t, pool, server.URL, ClientOptions{Namespace: "a"}, "token-1")
	second := newTestClient(t, pool, server.URL, ClientOptions{}, "token-2")

	for i, test := range []struct {
		client           *Client
		token, namespace string
		hasState         bool // of an earlier response
	}{
		{first, "token-1", "a", false},
		{second, "token-2", "", false},
		{first, "token-1", "a", true},
	} {
		if _, err := test.client.List(t.Context(), "kv"); err != nil {
			t.Fatal(err)
		}
		if got := seen.Get("X-Vault-Token"); got != test.token {
			t.Errorf("request %d: token %q, want %q", i, got, test.token)
		}
		if got := seen.Get("X-Vault-Namespace"); got != test.namespace {
			t.Errorf("request %d: namespace %q, want %q", i, got, test.namespace)
		}
		if got := seen.Get("X-Vault-Index") != ""; got != test.hasState {
			t.Errorf("request %d: it requires the state of an earlier response: %t, want %t", i, got, test.hasState)
		}
	}
}

// mountsOf has a mount known in namespaces, so that each call is one request.
func (s *ClientPool) mountsOf(t *testing.T, address string, namespaces ...string) {
	t.Helper()
	used := s.use(t, "", Endpoint{Address: address})
	for _, namespace := range namespaces {
		used.mounts.entries.Add(mountKey{namespace, "kv/"}, mount{path: "kv/", version: "1"})
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
	pool := NewClientPool(Config{})
	t.Cleanup(pool.Close)
	for range 2 {
		for namespace, want := range map[string]string{"first": "/v1/kv/app", "second": "/v1/kv/data/app"} {
			client := newTestClient(t, pool, server.URL, ClientOptions{Namespace: namespace}, "token")
			secret, err := client.Read(t.Context(), "kv/app")
			if err != nil || secret.Data["path"] != want {
				t.Errorf("in namespace %s: read %v, %v, want %s", namespace, secret, err, want)
			}
		}
	}
	if got := probes.Load(); got != 2 {
		t.Errorf("%d probes for the mount of two namespaces", got)
	}
}
