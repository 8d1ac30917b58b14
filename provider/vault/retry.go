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
	// defaultTimeout bounds one request with its retries; the caller's context bounds a
	// whole publish.
	defaultTimeout = 30 * time.Second
	// defaultRetries bridge a restart of a load balancer. In longer outages the kubelet
	// calls again, and shows the user why each time.
	defaultRetries = 2
	// defaultMinBackoff and defaultMaxBackoff are those of the vault/api client.
	defaultMinBackoff, defaultMaxBackoff = time.Second, 1500 * time.Millisecond
	// maxRetryAfter is the longest wait that a request accepts from Vault. A longer one
	// is an error, and the kubelet waits instead.
	maxRetryAfter = 10 * time.Second
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

// config returns the configuration of an api.Client with the options and their defaults.
func (o ClientOptions) config(address string, client *http.Client) *api.Config {
	config := &api.Config{
		Address: address, HttpClient: client, Timeout: defaultTimeout, MaxRetries: defaultRetries,
		MinRetryWait: defaultMinBackoff, MaxRetryWait: defaultMaxBackoff, CheckRetry: shouldRetry, Backoff: backoff,
		ReadYourWrites: true, // in a cluster, the client reads what it has written from each standby
	}
	if o.Timeout > 0 {
		config.Timeout = o.Timeout
	}
	if o.MaxRetries != 0 {
		config.MaxRetries = max(o.MaxRetries, 0)
	}
	if o.MaxBackoff > 0 {
		config.MinRetryWait, config.MaxRetryWait = min(defaultMinBackoff, o.MaxBackoff), o.MaxBackoff
	}
	if o.MinBackoff > 0 {
		config.MinRetryWait, config.MaxRetryWait = o.MinBackoff, max(o.MaxBackoff, o.MinBackoff)
	}
	return config
}

// shouldRetry is Vault's own policy, which retries 429, 412 and most 5xx. It leaves out
// what cannot succeed soon, and a response that broke off: Vault may have made
// credentials for it.
func shouldRetry(ctx context.Context, response *http.Response, err error) (bool, error) {
	if errors.Is(err, errBreakerOpen) || errors.Is(err, errRedirect) || isError[*bodyError](err) {
		return false, err
	}
	if response != nil && retryAfter(response) > maxRetryAfter {
		return false, nil
	}
	return api.DefaultRetryPolicy(ctx, response, err)
}

// backoff waits as long as Vault asks for with Retry-After, and otherwise longer each
// time, with jitter.
func backoff(shortest, longest time.Duration, attempt int, response *http.Response) time.Duration {
	if response != nil {
		if wait := retryAfter(response); wait > 0 {
			return wait
		}
	}
	return min(retryablehttp.LinearJitterBackoff(shortest, longest, attempt, response), maxRetryAfter)
}

// retryAfter is the wait that the response asks for, 0 if it asks for none. Vault
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
