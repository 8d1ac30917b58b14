package vault

import (
	"net/http"
	"time"
)

// requestsInFlight keep one node from being a burst that Vault's other clients
// feel. Vault answers a login in milliseconds, so that the pods of a whole node
// pass through in a second.
const requestsInFlight = 32

// limitedTransport sends a request when the circuit is closed and the gate has a
// place.
type limitedTransport struct {
	next     http.RoundTripper
	gate     *gate
	circuit  *circuit
	observer Observer // nil for none
	offset   *offset  // nil where nobody asks
	now      func() time.Time
}

// RoundTrip implements http.RoundTripper.
func (t *limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	attempt, err := t.circuit.allow()
	if err != nil {
		t.observe(request, HeldBack, 0)
		return nil, err
	}
	if err := t.gate.enter(request.Context(), isBackground(request.Context())); err != nil {
		attempt.end(err)
		t.observe(request, outcomeOf(nil, err), 0)
		return nil, err
	}
	defer t.gate.leave()
	attempt.send()
	start := time.Now()
	response, err := t.next.RoundTrip(request)
	attempt.end(outage(response, err))
	t.observe(request, outcomeOf(response, err), time.Since(start))
	if t.offset != nil {
		t.offset.hear(response, t.now())
	}
	bound(response)
	refuseEmpty(response)
	return response, err
}

func (t *limitedTransport) observe(request *http.Request, outcome Outcome, duration time.Duration) {
	if t.observer != nil {
		t.observer.Requested(operationOf(request.Context()), outcome, duration)
	}
}
