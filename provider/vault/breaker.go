package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// failuresToOpen in a row, by whomever, are the reason to ask Vault whether it
	// serves.
	failuresToOpen = 5
	// breakerPause is how long nobody asks after Vault did not serve, and how long
	// the driver waits for the answer whether it does.
	breakerPause = 5 * time.Second
)

var errBreakerOpen = errors.New("requests to Vault are held back")

// breaker is a circuit breaker: it keeps an outage cheap. There is one for each
// endpoint, not for each address: a volume whose own certificates or proxy fail must
// not stop the requests of others.
//
// A failed request proves nothing, since its path is a tenant's choice, that of a login
// included: Vault answers "sys/health?activecode=503" as asked, and an engine or an auth
// method fails, or hangs, with what it asks itself. So the breaker only counts failures. What opens
// and closes it is the answer to a request that no tenant can influence.
type breaker struct {
	logger  klog.Logger
	address string
	// probe asks Vault whether it serves. It is called without the mutex, once at a
	// time.
	probe func(context.Context) error

	mutex    sync.Mutex
	failures int  // in a row
	probing  bool // somebody calls probe
	open     bool
	until    time.Time // if it is open: nobody probes before
	last     error     // what the probe said last
	// blind says that a gateway fails the probe, and lets requests through.
	blind bool
}

// allow returns why nobody may ask now, nil if the caller may. The first caller after
// a pause probes (half-open).
func (b *breaker) allow(ctx context.Context) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.open && !b.probing && !time.Now().Before(b.until) {
		b.probeLocked(ctx)
		if asError[statusError](b.last) {
			return nil // the caller tries as well: a gateway may fail the probe alone
		}
	}
	if b.open {
		return fmt.Errorf("%w and tried again within %s, after: %w", errBreakerOpen, breakerPause, b.last)
	}
	return nil
}

// report says what became of a request. Any answer below status 500 ends a row of
// failures. It may take the time of a probe.
func (b *breaker) report(ctx context.Context, response *http.Response, err error) {
	if saysNothing(err) {
		return
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if err == nil && response.StatusCode < http.StatusInternalServerError {
		b.failures = 0
		if b.open && asError[statusError](b.last) {
			b.blind = true
			b.setLocked(false)
		}
		return
	}
	if b.failures++; b.failures >= failuresToOpen && !b.probing && !b.open {
		b.probeLocked(ctx)
	}
}

// probeLocked asks Vault whether it serves. The mutex is released meanwhile.
func (b *breaker) probeLocked(ctx context.Context) {
	b.probing = true
	b.mutex.Unlock()
	// Whoever asked may have given up: that must not be the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), breakerPause)
	err := b.probe(ctx)
	cancel()
	b.mutex.Lock()
	b.probing, b.failures, b.last = false, 0, err
	b.until = time.Now().Add(breakerPause)
	b.blind = b.blind && asError[statusError](err)
	b.setLocked(err != nil && !b.blind)
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

// saysNothing excludes failures that are not Vault's: the caller gave up, the
// certificates do not fit, or the request was not sent.
func saysNothing(err error) bool {
	for _, own := range []error{context.Canceled, errNoTurn, errRedirect, ErrTooLarge, errBusy, errNoPlace} {
		if errors.Is(err, own) {
			return true
		}
	}
	return err != nil && isDistrust(err)
}

// maxSealStatus bounds the answer to probeSealStatus, which is about 300 bytes.
const maxSealStatus = 16 << 10

// probeSealStatus asks for the seal status, which every Vault tells everybody, a
// standby included. A gateway that keeps the path to itself answers as well, so
// Vault is not known to be away.
func probeSealStatus(ctx context.Context, transport http.RoundTripper, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/sys/seal-status", nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusInternalServerError {
		return statusError(response.StatusCode)
	}
	var status struct{ Sealed bool }
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSealStatus))
	if err != nil {
		return err
	}
	if json.Unmarshal(body, &status) == nil && status.Sealed {
		return errSealed
	}
	return nil
}

// errSealed says in Vault's own words that it is sealed.
var errSealed error = sealedError{}

const sealedWords = "Vault is sealed"

type sealedError struct{}

// Error implements error.
func (sealedError) Error() string { return sealedWords }

// statusError is an answer of status 500 or above to the probe.
type statusError int

// Error implements error.
func (e statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(e)) }
