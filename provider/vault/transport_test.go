package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

// behindABreaker returns a transport of the driver around another.
func behindABreaker(next http.RoundTripper) *transport {
	t := &transport{next: next, places: fairqueue.New(requestsInFlight)}
	t.breaker = &breaker{logger: klog.Background(), address: "http://vault", probe: t.probe("http://vault")}
	return t
}

// get asks for a path, which takes patience at most.
func get(ctx context.Context, transport http.RoundTripper, path string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
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
func TestHangingEngineLeavesPlacesToOtherTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := behindABreaker(&hangingEngine{})
		evil, hang := context.WithCancel(fairqueue.WithTenant(t.Context(), "evil"))
		var group sync.WaitGroup
		for range 5 * 8 {
			group.Go(func() { _ = get(evil, transport, "/v1/hanging", 100*time.Second) })
		}
		synctest.Wait()
		if waiting := transport.places.Waiting(); waiting != 5*8-requestsInFlight/2 {
			t.Errorf("%d requests of the tenant wait, want all beyond half of the places", waiting)
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
	if classOf(ctx) != fairqueue.Foreground || classOf(WithBackground(ctx)) != fairqueue.Background || classOf(WithSharedCall(WithBackground(ctx))) != fairqueue.Foreground {
		t.Error("the nearest class is not the one that counts, or the default is not the foreground")
	}
}

// A request that gives up its turn is cancelled, and says nothing about Vault.
func TestNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := behindABreaker(&hangingEngine{})
		transport.places = fairqueue.NewWithShare(1, 1)
		if err := transport.places.Acquire(t.Context(), "", fairqueue.Foreground, 1); err != nil {
			t.Fatal(err)
		}
		for range 2 * failuresToOpen {
			if err := get(t.Context(), transport, "/v1/kv/app", time.Second); !errors.Is(err, errNoTurn) || !errors.Is(err, context.DeadlineExceeded) {
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
		"a moment":     {answer(429, "2"), true, 2 * time.Second},
		"a long while": {answer(429, "60"), false, 0},
		"sealed":       {answer(503, "3"), true, 3 * time.Second},
		"refused":      {answer(403, "3"), false, 0},
		"consistency":  {answer(412, ""), true, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			retry, _ := shouldRetry(t.Context(), test.response, nil)
			if retry != test.retry {
				t.Errorf("retry is %t", retry)
			}
			if wait := backOff(time.Second, 2*time.Second, 0, test.response); test.wait > 0 && wait != test.wait {
				t.Errorf("the wait is %s, want %s", wait, test.wait)
			}
		})
	}
	if retry, _ := shouldRetry(t.Context(), nil, errBreakerOpen); retry {
		t.Error("a request that is held back is tried again at once")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ given, want int }{
		"zero is the default": {0, defaultRetries},
		"some":                {5, 5},
		"none":                {NoRetries, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			session := resume(t, NewClientPool(Config{}), "http://vault:8200", ClientOptions{MaxRetries: test.given}, "token")
			if got := session.client.MaxRetries(); got != test.want {
				t.Errorf("%d retries, want %d", got, test.want)
			}
		})
	}
}
