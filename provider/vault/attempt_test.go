package vault

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sony/gobreaker/v2"
	"k8s.io/klog/v2"
)

// hangingEngine is a Vault that answers all but what is read from one engine.
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
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func (h *hangingEngine) behindACircuit() *limitedTransport {
	return &limitedTransport{next: h, gate: newGate(requestsInFlight), circuit: newCircuit(klog.Background(), "http://vault")}
}

// get asks for a path, which takes patience at most.
func get(t *testing.T, transport http.RoundTripper, path string, patience time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	response, err := transport.RoundTrip(httptest.NewRequestWithContext(ctx, http.MethodGet, "http://vault"+path, nil))
	if err == nil {
		response.Body.Close()
	}
	return err
}

// One secrets engine hangs, and all that one volume reads of it at once. That must
// not keep others from what Vault answers; if it answers nothing, it must.
func TestTimeoutsOpenTheCircuitIfNothingIsAnswered(t *testing.T) {
	for name, test := range map[string]struct {
		down, open bool
	}{
		"an engine hangs": {down: false, open: false},
		"Vault hangs":     {down: true, open: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vault := &hangingEngine{}
				vault.down.Store(test.down)
				transport := vault.behindACircuit()
				var group sync.WaitGroup
				for range 8 {
					group.Go(func() { _ = get(t, transport, "/v1/hanging", 30*time.Second) })
				}
				for range 3 {
					time.Sleep(9 * time.Second)
					group.Go(func() { _ = get(t, transport, "/v1/kv/app", 30*time.Second) })
				}
				group.Wait()
				if got := transport.circuit.isOpen(); got != test.open {
					t.Errorf("the circuit is open: %t", got)
				}
			})
		})
	}
}

// What was answered before a request was sent says nothing of Vault after.
func TestEarlierAnswersDoNotExcuseATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &hangingEngine{}
		transport := vault.behindACircuit()
		if err := get(t, transport, "/v1/kv/app", time.Second); err != nil {
			t.Fatal(err)
		}
		vault.down.Store(true)
		for range failuresToOpen {
			_ = get(t, transport, "/v1/kv/app", time.Second)
		}
		if err := get(t, transport, "/v1/kv/app", time.Second); !errors.Is(err, errCircuitOpen) {
			t.Errorf("got %v", err)
		}
	})
}

// openCircuit has requests fail until the circuit is open, and waits until one tries.
func (h *hangingEngine) openCircuit(t *testing.T, transport *limitedTransport) {
	t.Helper()
	h.down.Store(true)
	for range failuresToOpen {
		_ = get(t, transport, "/v1/kv/app", time.Second)
	}
	if got := transport.circuit.breaker.State(); got != gobreaker.StateOpen {
		t.Fatalf("the circuit is %s", got)
	}
	time.Sleep(circuitPause + time.Millisecond)
}

// Vault is back but for one engine, and the request that tries is of that engine.
func TestRequestThatHangsHoldsOthersBackForAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &hangingEngine{}
		transport := vault.behindACircuit()
		vault.openCircuit(t, transport)
		vault.down.Store(false)
		var group sync.WaitGroup
		group.Go(func() { _ = get(t, transport, "/v1/hanging", 30*time.Second) })
		synctest.Wait()
		if err := get(t, transport, "/v1/kv/app", time.Second); !errors.Is(err, errCircuitOpen) {
			t.Errorf("while one tries, another is told %v", err)
		}
		time.Sleep(circuitPause + time.Millisecond)
		if err := get(t, transport, "/v1/kv/app", time.Second); err != nil {
			t.Errorf("after a pause, another is told %v", err)
		}
		group.Wait()
		if got := transport.circuit.breaker.State(); got != gobreaker.StateClosed {
			t.Errorf("when the first has given up, the circuit is %s", got)
		}
	})
}

// While Vault hangs as a whole, one request tries in each pause, whoever wants to.
func TestHangingVaultIsTriedOnceInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vault := &hangingEngine{}
		transport := vault.behindACircuit()
		vault.openCircuit(t, transport)
		vault.calls.Store(0)
		var group sync.WaitGroup
		const pauses = 12
		for range pauses * int(circuitPause/time.Second) {
			group.Go(func() { _ = get(t, transport, "/v1/kv/app", 30*time.Second) })
			time.Sleep(time.Second)
		}
		if got := vault.calls.Load(); got < pauses/2 || got > pauses {
			t.Errorf("%d requests in %d pauses", got, pauses)
		}
		vault.down.Store(false)
		time.Sleep(circuitPause + time.Millisecond)
		if err := get(t, transport, "/v1/kv/app", time.Second); err != nil {
			t.Errorf("Vault is back: %v", err)
		}
		group.Wait()
		if got := transport.circuit.breaker.State(); got != gobreaker.StateClosed {
			t.Errorf("when all have given up, the circuit is %s", got)
		}
	})
}
