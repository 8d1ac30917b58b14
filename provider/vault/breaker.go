package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// failuresToOpen in a row are the reason to probe Vault.
	failuresToOpen = 5
	// openDuration is how long the breaker refuses requests before it probes again. It also
	// bounds a probe.
	openDuration = 5 * time.Second
)

var errBreakerOpen = errors.New("the circuit breaker is open")

// breaker is a circuit breaker: it keeps an outage cheap. Each endpoint has its own, and
// not each address: the certificates of one volume must not stop the others' requests.
//
// A failed request proves nothing, because a tenant chooses its path: an engine, or an
// auth method, may fail or hang by what it asks itself. So failures only make the breaker
// probe. It opens and closes by the answer to the probe, which no tenant influences.
type breaker struct {
	logger  klog.Logger
	address string
	// probe asks whether Vault serves. It is called without the mutex, once at a time.
	probe func(context.Context) error

	mutex    sync.Mutex
	failures int // in a row
	probing  bool
	open     bool
	until    time.Time // while it is open: no probe before
	last     error     // of the last probe
	// probeFailsAlone is set once a request succeeds while the probe fails: a gateway keeps
	// the probe's path to itself.
	probeFailsAlone bool
}

// allow returns an error while the breaker is open. The first caller after openDuration
// probes (half-open).
func (b *breaker) allow(ctx context.Context) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.open && !b.probing && !time.Now().Before(b.until) {
		b.probeLocked(ctx)
		if isError[statusError](b.last) {
			return nil // the caller tries as well: a gateway may fail the probe alone
		}
	}
	if b.open {
		return fmt.Errorf("%w, and the driver tries again within %s, after: %w", errBreakerOpen, openDuration, b.last)
	}
	return nil
}

// report counts the result of a request. A status below 500 ends a row of failures.
// It may take as long as a probe.
func (b *breaker) report(ctx context.Context, response *http.Response, err error) {
	if isExcluded(err) {
		return
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if err == nil && response.StatusCode < http.StatusInternalServerError {
		b.failures = 0
		if b.open && isError[statusError](b.last) {
			b.probeFailsAlone = true
			b.setLocked(false)
		}
		return
	}
	if b.failures++; b.failures >= failuresToOpen && !b.probing && !b.open {
		b.probeLocked(ctx)
	}
}

// probeLocked opens or closes the breaker by a probe. It releases the mutex meanwhile.
func (b *breaker) probeLocked(ctx context.Context) {
	b.probing = true
	b.mutex.Unlock()
	// The caller may have given up; its probe must not fail for that.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openDuration)
	err := b.probe(ctx)
	cancel()
	b.mutex.Lock()
	b.probing, b.failures, b.last = false, 0, err
	b.until = time.Now().Add(openDuration)
	b.probeFailsAlone = b.probeFailsAlone && isError[statusError](err)
	b.setLocked(err != nil && !b.probeFailsAlone)
}

func (b *breaker) setLocked(open bool) {
	if open != b.open {
		b.open = open
		b.logger.Info("Circuit breaker of Vault changed", "address", b.address, "open", open, "cause", fmt.Sprint(b.last))
	}
}

func (b *breaker) isOpen() bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.open
}

// isExcluded reports errors that are not Vault's: the caller gave up, the certificates
// do not fit, or the driver did not send the request or refused the response.
func isExcluded(err error) bool {
	for _, own := range []error{context.Canceled, errNotSent, errRedirect, ErrTooLarge, errNodeFull, errNeedsSlot} {
		if errors.Is(err, own) {
			return true
		}
	}
	return err != nil && isCertificateError(err)
}

// sealedMessage is in the answers of a sealed Vault.
const sealedMessage = "Vault is sealed"

var errSealed = errors.New("seal status: " + sealedMessage)

// statusError is a status of 500 or above in the answer to a probe.
type statusError int

// Error implements error.
func (e statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(e)) }
