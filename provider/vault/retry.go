package vault

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/hashicorp/vault/api"
)

const (
	// defaultTimeout bounds one request with its retries; the caller's context
	// bounds a whole publish.
	defaultTimeout = 30 * time.Second
	// defaultRetries bridge a restart of a load balancer; for longer outages the
	// kubelet calls again, and each time shows the user why.
	defaultRetries = 2
	// defaultMinBackoff and defaultMaxBackoff are those of the vault/api client.
	defaultMinBackoff, defaultMaxBackoff = time.Second, 1500 * time.Millisecond
	// longestWait is what a publish waits at Vault's bidding. Asked to wait longer,
	// it reports so and leaves the waiting to the kubelet.
	longestWait = 10 * time.Second
)

// ClientOptions are the settings of one client.
type ClientOptions struct {
	// Namespace is Vault's, not Kubernetes's; empty for the root namespace.
	Namespace string
	// Timeout bounds one request with its retries; 0 for 30 seconds.
	Timeout time.Duration
	// MaxRetries is how often a failed request is sent again; 0 for 2 times, NoRetries
	// for never.
	MaxRetries int
	// MinBackoff and MaxBackoff bound the waits between attempts to log in, and only
	// those; 0 for 1 and 1.5 seconds.
	MinBackoff, MaxBackoff time.Duration
}

// NoRetries is for ClientOptions.MaxRetries.
const NoRetries = -1

// backoff returns the bounds of the waits between attempts.
func (o ClientOptions) backoff() (shortest, longest time.Duration) {
	shortest, longest = defaultMinBackoff, defaultMaxBackoff
	if o.MaxBackoff > 0 {
		shortest, longest = min(shortest, o.MaxBackoff), o.MaxBackoff
	}
	if o.MinBackoff > 0 {
		shortest, longest = o.MinBackoff, max(o.MaxBackoff, o.MinBackoff)
	}
	return shortest, longest
}

// shouldRetry is Vault's own policy (429, 412 and most 5xx are worth another
// attempt), less what cannot succeed soon.
func shouldRetry(ctx context.Context, response *http.Response, err error) (bool, error) {
	if errors.Is(err, errBreakerOpen) || errors.Is(err, errRedirect) || asError[*bodyError](err) {
		return false, err
	}
	if response != nil && retryAfter(response) > longestWait {
		return false, nil
	}
	return api.DefaultRetryPolicy(ctx, response, err)
}

// backOff waits as long as Vault asks for with Retry-After, and otherwise longer
// each time, with jitter.
func backOff(shortest, longest time.Duration, attempt int, response *http.Response) time.Duration {
	if response != nil {
		if wait := retryAfter(response); wait > 0 {
			return wait
		}
	}
	return min(retryablehttp.LinearJitterBackoff(shortest, longest, attempt, response), longestWait)
}

// retryAfter is the wait that the answer asks for, 0 if it asks for none. Vault
// writes whole seconds.
func retryAfter(response *http.Response) time.Duration {
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
