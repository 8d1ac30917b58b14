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
	// longestWait is what a publish waits at Vault's bidding. Asked to wait longer,
	// it reports so and leaves the waiting to the kubelet.
	longestWait = 10 * time.Second
)

// Options are how patient one session is. Zero values stand for the defaults.
type Options struct {
	Namespace string
	Timeout   time.Duration
	// MaxRetries is how often a request that failed is sent again; NoRetries for
	// never.
	MaxRetries             int
	MinBackoff, MaxBackoff time.Duration // between attempts to log in
}

// NoRetries stands for no retries, since 0 is the default.
const NoRetries = -1

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
