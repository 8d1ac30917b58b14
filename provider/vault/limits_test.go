package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"
	"k8s.io/klog/v2"
)

// roundTripper answers with a status, or fails with an error.
type roundTripper struct {
	status int
	err    error
	calls  int
}

func (r *roundTripper) RoundTrip(*http.Request) (*http.Response, error) {
	r.calls++
	if r.err != nil {
		return nil, r.err
	}
	return &http.Response{StatusCode: r.status, Body: http.NoBody}, nil
}

func send(t *testing.T, transport http.RoundTripper) error {
	t.Helper()
	response, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://vault/v1/x", nil))
	if err == nil {
		response.Body.Close()
	}
	return err
}

func TestCircuitOpensForAnOutageAndClosesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &roundTripper{err: errors.New("connection refused")}
		transport := &limitedTransport{next: next, gate: newGate(1), circuit: newCircuit(klog.Background(), "http://vault")}
		for range failuresToOpen {
			if err := send(t, transport); errors.Is(err, errCircuitOpen) {
				t.Fatal("the circuit opened early")
			}
		}
		err := send(t, transport)
		if !errors.Is(err, errCircuitOpen) || !strings.Contains(err.Error(), "tried again within 5s, after: connection refused") || next.calls != failuresToOpen {
			t.Errorf("after %d requests: %v", next.calls, err)
		}
		next.err, next.status = nil, http.StatusOK
		time.Sleep(circuitPause + time.Millisecond)
		for range 2 {
			if err := send(t, transport); err != nil {
				t.Errorf("Vault is back: %v", err)
			}
		}
	})
}

func TestCircuitStaysClosedForWhatIsNoOutage(t *testing.T) {
	tests := map[string]*roundTripper{
		"a refusal":           {status: http.StatusForbidden},
		"a broken engine":     {status: http.StatusInternalServerError},
		"a rate limit":        {status: http.StatusTooManyRequests},
		"a caller that left":  {err: context.Canceled},
		"another's authority": {err: &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}},
	}
	for name, next := range tests {
		t.Run(name, func(t *testing.T) {
			transport := &limitedTransport{next: next, gate: newGate(1), circuit: newCircuit(klog.Background(), "http://vault")}
			for range 3 * failuresToOpen {
				if err := send(t, transport); errors.Is(err, errCircuitOpen) {
					t.Fatal("the circuit opened")
				}
			}
			if transport.circuit.breaker.State() != gobreaker.StateClosed {
				t.Errorf("the circuit is %s", transport.circuit.breaker.State())
			}
		})
	}
}

func TestGateLetsTheForegroundPassFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		if err := g.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 4)
		join := func(name string, background bool) {
			go func() {
				if err := g.enter(t.Context(), background); err != nil {
					t.Error(err)
				}
				order <- name
				g.leave()
			}()
			synctest.Wait()
		}
		join("revocation", true)
		join("pod 1", false)
		join("another revocation", true)
		join("pod 2", false)
		g.leave()
		for _, want := range []string{"pod 1", "pod 2", "revocation", "another revocation"} {
			if got := <-order; got != want {
				t.Errorf("%s passed, want %s", got, want)
			}
		}
		synctest.Wait()
		if g.free != 1 {
			t.Errorf("%d places are free, want 1", g.free)
		}
	})
}

func TestGateForgetsWhoeverGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		if err := g.enter(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.enter(ctx, false); !errors.Is(err, errNoTurn) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		g.leave()
		if g.free != 1 || g.foreground.Len() != 0 {
			t.Errorf("%d places are free and %d wait", g.free, g.foreground.Len())
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
	if retry, _ := shouldRetry(t.Context(), nil, errCircuitOpen); retry {
		t.Error("a request that is held back is tried again at once")
	}
}
