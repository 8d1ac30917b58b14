package vault

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// roundTripper answers with a status, or fails with an error. It answers whether it is
// sealed by itself, unless all fails.
type roundTripper struct {
	status     int
	err        error
	all        bool // fails, also the probe
	sealed     bool
	calls      int
	probes     int
	probeFails bool // with the status, and nothing else
}

const sealStatusPath = "/v1/sys/seal-status"

func (r *roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	isProbe := request.URL.Path == sealStatusPath
	if isProbe {
		r.probes++
	} else {
		r.calls++
	}
	switch {
	case isProbe && r.sealed:
		return responseOf(http.StatusOK, `{"sealed":true}`), nil
	case isProbe && r.probeFails:
		return responseOf(http.StatusServiceUnavailable, "<html>"), nil
	case isProbe && !r.all:
		return responseOf(http.StatusOK, `{"sealed":false}`), nil
	case r.err != nil:
		return nil, r.err
	}
	return responseOf(r.status, "{}"), nil
}

func responseOf(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}
}

func TestBreakerOpensForAnOutageAndClosesAfterIt(t *testing.T) {
	for name, next := range map[string]*roundTripper{
		"nobody listens":          {err: errors.New("connection refused"), all: true},
		"a gateway answers":       {status: http.StatusBadGateway, all: true},
		"a load balancer does":    {status: http.StatusServiceUnavailable, all: true},
		"a gateway waits":         {status: http.StatusGatewayTimeout, all: true},
		"Vault says it is sealed": {status: http.StatusServiceUnavailable, sealed: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport := newTestEndpoint(next)
				for range failuresToOpen {
					if err := get(t.Context(), transport, "/v1/x", time.Second); errors.Is(err, errBreakerOpen) {
						t.Fatal("the breaker opened early")
					}
				}
				err := get(t.Context(), transport, "/v1/x", time.Second)
				if !errors.Is(err, errBreakerOpen) || !strings.Contains(err.Error(), "the driver tries again within 5s, after: ") || next.calls != failuresToOpen || next.probes != 1 {
					t.Errorf("after %d requests and %d probes: %v", next.calls, next.probes, err)
				}
				*next = roundTripper{status: http.StatusOK}
				time.Sleep(openDuration + time.Millisecond)
				for range 2 {
					if err := get(t.Context(), transport, "/v1/x", time.Second); err != nil {
						t.Errorf("Vault is back: %v", err)
					}
				}
				if next.probes != 1 {
					t.Errorf("%d probes when Vault is back", next.probes)
				}
			})
		})
	}
}

// The failures of one tenant's path or role do not open the breaker, however many they are.
func TestBreakerStaysClosedForWhatIsNoOutage(t *testing.T) {
	tests := map[string]*roundTripper{
		"a refusal":                   {status: http.StatusForbidden},
		"a broken engine":             {status: http.StatusInternalServerError},
		"a rate limit":                {status: http.StatusTooManyRequests},
		"a status on request":         {status: http.StatusServiceUnavailable},
		"a gateway's for one path":    {status: http.StatusBadGateway},
		"an engine behind a timeout":  {status: http.StatusGatewayTimeout},
		"a path that a proxy resets":  {err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}},
		"an engine that hangs":        {err: context.DeadlineExceeded},
		"a caller that left":          {err: context.Canceled, all: true},
		"a certificate of another CA": {err: &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, all: true},
	}
	for name, next := range tests {
		t.Run(name, func(t *testing.T) {
			transport := newTestEndpoint(next)
			for range 3 * failuresToOpen {
				if err := get(t.Context(), transport, "/v1/x", time.Second); errors.Is(err, errBreakerOpen) {
					t.Fatal("the breaker opened")
				}
			}
			if transport.breaker.isOpen() {
				t.Error("the breaker is open")
			}
			if next.probes > 3 {
				t.Errorf("%d probes for %d requests", next.probes, 3*failuresToOpen)
			}
		})
	}
}

// A gateway that fails only the probe must not stop all requests. Once it has let one
// pass, a tenant's failures must not stop them again.
func TestGatewayThatFailsTheProbeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &roundTripper{status: http.StatusServiceUnavailable, probeFails: true}
		transport := newTestEndpoint(next)
		fail := func() {
			next.status = http.StatusServiceUnavailable
			for range failuresToOpen {
				_ = get(t.Context(), transport, "/v1/x", time.Second)
			}
			next.status = http.StatusOK
		}
		fail()
		time.Sleep(openDuration + time.Millisecond)
		if err := get(t.Context(), transport, "/v1/kv/app", time.Second); err != nil {
			t.Errorf("a request that the gateway forwards: %v", err)
		}
		fail()
		if err := get(t.Context(), transport, "/v1/kv/app", time.Second); err != nil {
			t.Errorf("after the next failures: %v", err)
		}
	})
}

// hangingEngine is a Vault with one engine that does not answer.
type hangingEngine struct {
	down  atomic.Bool // it answers nothing
	calls atomic.Int32
}

// RoundTrip implements http.RoundTripper.
func (h *hangingEngine) RoundTrip(r *http.Request) (*http.Response, error) {
	h.calls.Add(1)
	if h.down.Load() || r.URL.Path == "/v1/hanging" {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return responseOf(http.StatusOK, "{}"), nil
}

// One secrets engine hangs, and all that one volume reads of it at once. That must
// not stop other requests. If all of Vault hangs, it must.
func TestTimeoutsOpenTheBreakerIfNothingIsAnswered(t *testing.T) {
	for name, down := range map[string]bool{"an engine hangs": false, "Vault hangs": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vault := &hangingEngine{}
				vault.down.Store(down)
				transport := newTestEndpoint(vault)
				var group sync.WaitGroup
				for range 8 {
					group.Go(func() { _ = get(t.Context(), transport, "/v1/hanging", 30*time.Second) })
				}
				group.Wait()
				if got := transport.breaker.isOpen(); got != down {
					t.Errorf("the breaker is open: %t", got)
				}
			})
		})
	}
}

// An earlier answer does not excuse later timeouts.
func TestEarlierAnswersDoNotExcuseATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &hangingEngine{}
		transport := newTestEndpoint(vault)
		if err := get(t.Context(), transport, "/v1/kv/app", time.Second); err != nil {
			t.Fatal(err)
		}
		vault.openBreaker(t, transport)
	})
}

// openBreaker has requests fail until the breaker is open, and waits until one tries.
func (h *hangingEngine) openBreaker(t *testing.T, transport *endpointClient) {
	t.Helper()
	h.down.Store(true)
	for range failuresToOpen {
		_ = get(t.Context(), transport, "/v1/kv/app", time.Second)
	}
	if err := get(t.Context(), transport, "/v1/kv/app", time.Second); !errors.Is(err, errBreakerOpen) {
		t.Fatalf("got %v", err)
	}
	time.Sleep(openDuration + time.Millisecond)
}

// Vault is back but for one engine, and the request that comes first is for that
// engine: it delays no other request.
func TestRequestThatHangsDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &hangingEngine{}
		transport := newTestEndpoint(vault)
		vault.openBreaker(t, transport)
		vault.down.Store(false)
		var group sync.WaitGroup
		group.Go(func() { _ = get(t.Context(), transport, "/v1/hanging", 30*time.Second) })
		synctest.Wait()
		if err := get(t.Context(), transport, "/v1/kv/app", time.Second); err != nil {
			t.Errorf("while one waits, another fails: %v", err)
		}
		group.Wait()
		if transport.breaker.isOpen() {
			t.Error("when the first has given up, the breaker is open")
		}
	})
}

// While all of Vault hangs, it gets one probe in each pause.
func TestHangingVaultIsTriedOnceInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &hangingEngine{}
		transport := newTestEndpoint(vault)
		vault.openBreaker(t, transport)
		vault.calls.Store(0)
		var group sync.WaitGroup
		const pauses = 12
		for range pauses * int(openDuration/time.Second) {
			group.Go(func() { _ = get(t.Context(), transport, "/v1/kv/app", 30*time.Second) })
			time.Sleep(time.Second)
		}
		if got := vault.calls.Load(); got < pauses/2 || got > pauses {
			t.Errorf("%d requests in %d pauses", got, pauses)
		}
		vault.down.Store(false)
		time.Sleep(2 * openDuration)
		if err := get(t.Context(), transport, "/v1/kv/app", time.Second); err != nil {
			t.Errorf("Vault is back: %v", err)
		}
		group.Wait()
		if transport.breaker.isOpen() {
			t.Error("when all have given up, the breaker is open")
		}
	})
}

// A caller that gives up does not end the probe, which would open the breaker.
func TestProbeOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := newTestEndpoint(&hangingEngine{})
		for range 3 * failuresToOpen {
			_ = get(t.Context(), transport, "/v1/hanging", time.Second)
		}
		if transport.breaker.isOpen() {
			t.Error("the breaker is open")
		}
	})
}
