package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Observer is told about requests to Vault when they are over. It may be called
// concurrently, and returns at once.
type Observer interface {
	// ObserveRequest gets the time until the header of the response; 0 for a request
	// that was not sent.
	ObserveRequest(operation Operation, result Result, duration time.Duration)
	// ObserveLoginFallback is for a login with Credentials.FallbackJWT.
	ObserveLoginFallback()
}

// Operation is what a request is for.
type Operation string

// The operations, as metrics name them.
const (
	OperationLogin      Operation = "login"
	OperationRead       Operation = "read"
	OperationList       Operation = "list"
	OperationWrite      Operation = "write"
	OperationRenewToken Operation = "renew_token"
	OperationRenewLease Operation = "renew_lease"
	OperationRevoke     Operation = "revoke"
	OperationMountProbe Operation = "mount_probe"
	// OperationSealProbe is the breaker's own request.
	OperationSealProbe Operation = "seal_probe"
)

// Operations returns all operations, for metrics that start at zero.
func Operations() []Operation {
	return []Operation{
		OperationLogin, OperationRead, OperationList, OperationWrite, OperationRenewToken, OperationRenewLease,
		OperationRevoke, OperationMountProbe, OperationSealProbe,
	}
}

// readsSecret reports whether a volume retains the response.
func (o Operation) readsSecret() bool {
	return o == OperationRead || o == OperationList || o == OperationWrite
}

// Result is what became of a request.
type Result string

// The results, as metrics name them.
const (
	ResultSuccess     Result = "success"
	ResultNotFound    Result = "not_found"
	ResultDenied      Result = "denied"
	ResultRefused     Result = "refused" // any other status of 400 to 499
	ResultThrottled   Result = "throttled"
	ResultSealed      Result = "sealed" // in Vault's own words, as no gateway's 503
	ResultError       Result = "error"  // any other status of 500 and above, or a rejected response
	ResultUnreachable Result = "unreachable"
	ResultCircuitOpen Result = "circuit_open" // not sent: the breaker is open
	ResultCanceled    Result = "canceled"     // the caller gave up
)

// Results returns all results, for metrics that start at zero.
func Results() []Result {
	return []Result{
		ResultSuccess, ResultNotFound, ResultDenied, ResultRefused, ResultThrottled, ResultSealed, ResultError,
		ResultUnreachable, ResultCircuitOpen, ResultCanceled,
	}
}

// call is what a context says about its requests.
type call struct {
	operation Operation // a path does not say it, since each plugin has its own
	class     fairqueue.Class
	isShared  bool
	quota     *Quota // nil for a request that reads no secret of a volume
}

type callKey struct{}

func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

func withCall(ctx context.Context, change func(*call)) context.Context {
	c := callOf(ctx)
	change(&c)
	return context.WithValue(ctx, callKey{}, c)
}

func withOperation(ctx context.Context, operation Operation) context.Context {
	return withCall(ctx, func(c *call) { c.operation = operation })
}

// WithBackground marks the requests of a context as ones that can wait for those that
// starting pods wait for.
func WithBackground(ctx context.Context) context.Context {
	return withCall(ctx, func(c *call) { c.class = fairqueue.Background })
}

// WithSharedCall marks the requests of a context as ones whose result several volumes
// wait for, starting pods among them. They are in the foreground, and do not wait for a
// slot of Quota, which a waiting volume may hold.
func WithSharedCall(ctx context.Context) context.Context {
	return withCall(ctx, func(c *call) { c.class, c.isShared = fairqueue.Foreground, true })
}

// WithQuota counts the responses to the requests of a context.
func WithQuota(ctx context.Context, q *Quota) context.Context {
	return withCall(ctx, func(c *call) { c.quota = q })
}

var errNotSent = errors.New("the request was not sent because many others wait")

// endpointClient is what the clients of one endpoint share. As their http.RoundTripper it
// sends a request when the breaker is closed and it is the namespace's turn. It reads the
// body within its limits before it ends the turn: an api.Client reads without a limit.
type endpointClient struct {
	pool    *ClientPool
	address string
	wire    http.RoundTripper
	http    *http.Client // sends through the endpointClient
	limiter *fairqueue.Limiter
	breaker *breaker
	mounts  *mountCache
	// Under the mutex of the pool.
	lastUsed  time.Time
	namespace string // of the pods that use it; severalNamespaces, or "" for none
}

// RoundTrip implements http.RoundTripper.
func (e *endpointClient) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	if err := e.breaker.allow(ctx); err != nil {
		e.observe(request, ResultCircuitOpen, 0)
		return nil, err
	}
	response, err := e.sendWithinLimit(request)
	e.breaker.report(ctx, response, err)
	if err != nil {
		return nil, shorten(err)
	}
	return response, nil
}

func (e *endpointClient) sendWithinLimit(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	namespace := fairqueue.Tenant(ctx)
	if err := e.limiter.Acquire(ctx, namespace, callOf(ctx).class, 1); err != nil {
		e.observe(request, ResultCanceled, 0)
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	defer e.limiter.Release(namespace, 1)
	response, _, err := e.send(request)
	return response, err
}

// send sends a request, checks the response and reads its body. If it rejects the
// response, it returns it beside the error, without its body.
func (e *endpointClient) send(request *http.Request) (response *http.Response, result Result, err error) {
	start := time.Now()
	response, err = e.wire.RoundTrip(request)
	duration := time.Since(start)
	if err == nil {
		defer response.Body.Close()
		err = e.checkRedirect(request, response)
	}
	var content []byte
	if err == nil {
		content, err = readBody(request.Context(), response)
	}
	result = resultOf(response, err)
	if err == nil && isSealed(callOf(request.Context()).operation, response, content) {
		result = ResultSealed
	}
	e.observe(request, result, duration)
	return response, result, err
}

// probe requests the seal status, which each Vault tells everybody, a standby included. It
// is for the breaker. It waits for no turn: a namespace that has them all must not look
// like an outage.
func (e *endpointClient) probe(ctx context.Context) error {
	ctx = withOperation(WithQuota(ctx, nil), OperationSealProbe)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.address+"/v1/sys/seal-status", nil)
	if err != nil {
		return err
	}
	response, result, err := e.send(request)
	if response == nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case result == ResultSealed:
		return errSealed
	case response.StatusCode >= http.StatusInternalServerError:
		return statusError(response.StatusCode)
	case errors.Is(err, errNotVault), errors.Is(err, errRedirect):
		return nil // a gateway rejects the path
	}
	return err
}

func (e *endpointClient) observe(request *http.Request, result Result, duration time.Duration) {
	if e.pool.config.Observer != nil {
		e.pool.config.Observer.ObserveRequest(callOf(request.Context()).operation, result, duration)
	}
}

func resultOf(response *http.Response, err error) Result {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errNeedsSlot):
		return ResultCanceled
	case errors.Is(err, ErrTooLarge), errors.Is(err, errNodeFull), errors.Is(err, errNotVault), errors.Is(err, errRedirect):
		return ResultError
	case err != nil:
		return ResultUnreachable
	}
	switch status := response.StatusCode; {
	case status == http.StatusNotFound:
		return ResultNotFound
	case status == http.StatusForbidden:
		return ResultDenied
	case status == http.StatusTooManyRequests:
		return ResultThrottled
	case status >= http.StatusInternalServerError:
		return ResultError
	case status >= http.StatusBadRequest:
		return ResultRefused
	}
	return ResultSuccess
}

var errRedirect = errors.New("a redirect of Vault leads to another host")

// checkRedirect refuses a redirect that would send the token, or the credentials of a
// login, to a host that the administrator has not allowed. The api.Client follows the
// others, once: it sends the token and the body again.
func (e *endpointClient) checkRedirect(request *http.Request, response *http.Response) error {
	location := response.Header.Get("Location")
	if response.StatusCode < http.StatusMultipleChoices || response.StatusCode >= http.StatusBadRequest || location == "" {
		return nil
	}
	target, err := request.URL.Parse(location)
	if err != nil {
		return fmt.Errorf("%w: its Location is not a URL", errRedirect)
	}
	if origin(target) == origin(request.URL) {
		return nil
	}
	shown := limits.Truncate(origin(target), limits.ErrorBytes.Max()/4)
	switch {
	case request.URL.Scheme == "https" && target.Scheme != "https":
		return fmt.Errorf("%w, %s, without TLS; the driver does not follow it", errRedirect, shown)
	case e.pool.config.AllowRedirect == nil || !e.pool.config.AllowRedirect(origin(target)):
		return fmt.Errorf("%w, %s, which is not allowed; set it as the address, or allow it (--allow-address)", errRedirect, shown)
	case request.ContentLength != 0:
		return fmt.Errorf("%w, %s; the driver sends what it writes, such as the token of a login, to no other host; set that host as the address, or let Vault forward requests",
			errRedirect, shown)
	}
	return nil
}

// origin is scheme, host and port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

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
