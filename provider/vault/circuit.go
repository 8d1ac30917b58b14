package vault

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"k8s.io/klog/v2"
)

const (
	// failuresToOpen in a row, by whomever, mean that Vault is away.
	failuresToOpen = 5
	// circuitPause is how long nobody asks then; after it, one request tries, and
	// another each time this long after one that has no answer yet.
	circuitPause = 5 * time.Second
)

var errCircuitOpen = errors.New("requests to Vault are held back")

// circuit keeps an outage cheap. There is one for each endpoint, not for each
// address: a volume whose own certificates or proxy fail must not hold back
// those of others.
type circuit struct {
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	// answers counts what Vault has answered.
	answers atomic.Uint64

	mutex sync.Mutex
	last  error // why requests fail
}

func newCircuit(logger klog.Logger, address string) *circuit {
	return &circuit{breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        address,
		MaxRequests: 1,
		Timeout:     circuitPause,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= failuresToOpen },
		IsExcluded:  saysNothing,
		OnStateChange: func(address string, from, to gobreaker.State) {
			logger.Info("Circuit to Vault changed", "address", address, "from", from.String(), "to", to.String())
		},
	})}
}

// allow returns an attempt to ask, which ends with a call of end, or why nobody may
// ask now.
func (c *circuit) allow() (*attempt, error) {
	report, err := c.breaker.Allow()
	if err != nil {
		return nil, fmt.Errorf("%w and tried again within %s, after: %w", errCircuitOpen, circuitPause, c.lastFailure())
	}
	a := &attempt{circuit: c, report: report}
	if c.breaker.State() == gobreaker.StateHalfOpen {
		a.patience = time.AfterFunc(circuitPause, func() { report(errHangs) })
	}
	return a, nil
}

// isOpen tells whether requests are held back, or let through one at a time.
func (c *circuit) isOpen() bool { return c.breaker.State() != gobreaker.StateClosed }

func (c *circuit) note(outcome error) {
	if outcome == nil || saysNothing(outcome) {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.last = outcome
}

func (c *circuit) lastFailure() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.last
}

// outage tells a Vault that is away from one that answers. A 500 is an answer:
// it may come from one broken secrets engine, and is no reason to keep all
// others from theirs.
func outage(response *http.Response, err error) error {
	if err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("HTTP status %d", response.StatusCode)
	}
	return nil
}
