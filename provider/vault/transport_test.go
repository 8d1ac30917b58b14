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
	"testing"
	"testing/synctest"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

// newTestEndpoint returns an endpoint that sends requests with a RoundTripper of a test.
func newTestEndpoint(next http.RoundTripper) *endpointClient {
	return NewClientPool(Config{}).newEndpointClient("http://vault", next)
}

// get requests a path, within a timeout.
func get(ctx context.Context, transport http.RoundTripper, path string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := transport.RoundTrip(httptest.NewRequestWithContext(ctx, http.MethodGet, "http://vault"+path, nil))
	if err == nil {
		response.Body.Close()
	}
	return err
}

// Five pods of one namespace read eight secrets each of an engine that hangs. The
// requests of other namespaces do not wait for them, and those in the background
// neither.
func TestHangingEngineLeavesRequestsToOtherNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := newTestEndpoint(&hangingEngine{})
		evil, hang := context.WithCancel(fairqueue.WithTenant(t.Context(), "evil"))
		var group sync.WaitGroup
		for range 5 * 8 {
			group.Go(func() { _ = get(evil, transport, "/v1/hanging", 100*time.Second) })
		}
		synctest.Wait()
		if waiting := transport.limiter.Waiting(); waiting != 5*8-requestsInFlight/2 {
			t.Errorf("%d requests of the namespace wait, want all beyond half of the limit", waiting)
		}
		start := time.Now()
		for i := range 100 {
			victim := fairqueue.WithTenant(t.Context(), fmt.Sprint("victim", i%3))
			if i%2 == 1 {
				victim = WithBackground(victim)
			}
			if err := get(victim, transport, "/v1/kv/app", time.Minute); err != nil {
				t.Error(err)
			}
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("100 requests of others waited %s", waited)
		}
		hang()
		group.Wait()
	})
}

func TestForegroundAndBackground(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if callOf(ctx).class != fairqueue.Foreground || callOf(WithBackground(ctx)).class != fairqueue.Background || callOf(WithSharedCall(WithBackground(ctx))).class != fairqueue.Foreground {
		t.Error("the nearest class is not the one that counts, or the default is not the foreground")
	}
}

// A request that was not sent says nothing about Vault.
func TestRequestsThatWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := newTestEndpoint(&hangingEngine{})
		transport.limiter = fairqueue.NewWithShare(1, 1)
		if err := transport.limiter.Acquire(t.Context(), "", fairqueue.Foreground, 1); err != nil {
			t.Fatal(err)
		}
		for range 2 * failuresToOpen {
			if err := get(t.Context(), transport, "/v1/kv/app", time.Second); !errors.Is(err, errNotSent) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		}
		if transport.breaker.failures != 0 {
			t.Errorf("requests that were not sent count as %d failures", transport.breaker.failures)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	answer := func(status int, after string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {after}}}
	}
	tests := map[string]struct {
		response *http.Response
		retry    bool
		wait     time.Duration
	}{
		"seconds":     {answer(429, "2"), true, 2 * time.Second},
		"a minute":    {answer(429, "60"), false, 0},
		"sealed":      {answer(503, "3"), true, 3 * time.Second},
		"refused":     {answer(403, "3"), false, 0},
		"consistency": {answer(412, ""), true, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			retry, _ := shouldRetry(t.Context(), test.response, nil)
			if retry != test.retry {
				t.Errorf("retry is %t", retry)
			}
			if wait := backoff(time.Second, 2*time.Second, 0, test.response); test.wait > 0 && wait != test.wait {
				t.Errorf("the wait is %s, want %s", wait, test.wait)
			}
		})
	}
	if retry, _ := shouldRetry(t.Context(), nil, errBreakerOpen); retry {
		t.Error("a request is retried while the breaker is open")
	}
}

func TestMaxRetries(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ given, want int }{
		"zero is the default": {0, defaultRetries},
		"some":                {5, 5},
		"none":                {NoRetries, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newTestClient(t, NewClientPool(Config{}), "http://vault:8200", ClientOptions{MaxRetries: test.given}, "token")
			if got := client.api.MaxRetries(); got != test.want {
				t.Errorf("%d retries, want %d", got, test.want)
			}
		})
	}
}

// recorder is a Vault that records the requests it gets.
type recorder struct {
	*httptest.Server

	mutex    sync.Mutex
	requests []string // method, path, token and body
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	h := &recorder{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mutex.Lock()
		h.requests = append(h.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Vault-Token")+" "+string(body))
		h.mutex.Unlock()
		_, _ = io.WriteString(w, `{"request_id":"1","data":{"v":"stolen"},"auth":{"client_token":"hvs.x"}}`)
	}))
	t.Cleanup(h.Close)
	return h
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	read := func(pool *ClientPool, address string) error {
		client, err := pool.Client(context.Background(), Endpoint{Address: address}, ClientOptions{MaxRetries: NoRetries}, Token{Secret: "hvs.secret"})
		if err != nil {
			return err
		}
		_, err = client.Read(context.Background(), "kv/data/app")
		return err
	}
	logIn := func(pool *ClientPool, address string) error {
		_, err := pool.Login(context.Background(), Endpoint{Address: address}, ClientOptions{MaxRetries: NoRetries}, Credentials{Mount: "auth/jwt", Role: "app", JWT: "canary-jwt"})
		return err
	}
	tests := map[string]struct {
		ask      func(*ClientPool, string) error
		status   int
		target   string // empty for the other server
		allowed  bool
		want     string // of the error
		received int    // requests of the other server
	}{
		"a read to another host":            {ask: read, status: 307, want: "which is not allowed"},
		"a read to an allowed one":          {ask: read, status: 307, allowed: true, received: 1},
		"a login to another host":           {ask: logIn, status: 307, want: "which is not allowed"},
		"a login to an allowed one":         {ask: logIn, status: 307, allowed: true, want: "the driver sends what it writes, such as the token of a login, to no other host"},
		"a read, moved for good":            {ask: read, status: 301, want: "which is not allowed"},
		"a login, found":                    {ask: logIn, status: 302, want: "which is not allowed"},
		"the metadata service":              {ask: read, status: 307, target: "http://169.254.169.254/latest", allowed: true, want: "link-local"},
		"the metadata service, not allowed": {ask: read, status: 307, target: "http://169.254.169.254/latest", want: "which is not allowed"},
		"no URL":                            {ask: read, status: 307, target: "http://a b/%zz", want: "its Location is not a URL"},
		"another scheme":                    {ask: read, status: 307, target: "gopher://x/", want: "which is not allowed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := startRecorder(t)
			address := startVault(t, func(w http.ResponseWriter, r *http.Request) {
				location := test.target
				if location == "" {
					location = other.URL + r.URL.Path
				}
				w.Header().Set("Location", location)
				w.WriteHeader(test.status)
			})
			pool := NewClientPool(Config{AllowRedirect: func(string) bool { return test.allowed }})
			err := test.ask(pool, address)
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want … %s", err, test.want)
			}
			if len(other.requests) != test.received || test.received == 0 && strings.Contains(strings.Join(other.requests, ""), "canary") {
				t.Errorf("the other host got %q", other.requests)
			}
		})
	}
}

// Vault itself may send a request to another path, or another address of its own.
func TestRedirectToTheSameHostIsFollowed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.URL.Path == "/v1/moved" && strings.Contains(string(body), "canary-jwt") {
			_, _ = io.WriteString(w, `{"auth":{"client_token":"hvs.x"}}`)
			return
		}
		http.Redirect(w, r, "/v1/moved", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(server.Close)
	if _, err := NewClientPool(Config{}).Login(t.Context(), Endpoint{Address: server.URL}, ClientOptions{}, Credentials{Mount: "auth/jwt", JWT: "canary-jwt"}); err != nil {
		t.Error(err)
	}
}

func TestRedirectDropsNoTLS(t *testing.T) {
	t.Parallel()
	other := startRecorder(t)
	first := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", other.URL+r.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	t.Cleanup(first.Close)
	pool := NewClientPool(Config{AllowRedirect: func(string) bool { return true }})
	_, err := pool.Login(t.Context(), Endpoint{Address: first.URL, SkipVerify: true}, ClientOptions{MaxRetries: NoRetries}, Credentials{Mount: "auth/jwt", JWT: "canary-jwt"})
	if err == nil || !strings.Contains(err.Error(), "without TLS") || len(other.requests) != 0 {
		t.Errorf("got %v, and the other host got %q", err, other.requests)
	}
}
