package vault

import "net/http"

// requestsInFlight keep one node from being a burst that Vault's other clients
// feel. Vault answers a login in milliseconds, so that the pods of a whole node
// pass through in a second.
const requestsInFlight = 32

// limitedTransport sends a request when the circuit is closed and the gate has a
// place.
type limitedTransport struct {
	next    http.RoundTripper
	gate    *gate
	circuit *circuit
}

// RoundTrip implements http.RoundTripper.
func (t *limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	done, err := t.circuit.allow()
	if err != nil {
		return nil, err
	}
	if err := t.gate.enter(request.Context(), isBackground(request.Context())); err != nil {
		done(err)
		return nil, err
	}
	defer t.gate.leave()
	response, err := t.next.RoundTrip(request)
	done(outage(response, err))
	return response, err
}
