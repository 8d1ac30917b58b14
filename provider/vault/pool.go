package vault

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Config is what a ClientPool works with.
type Config struct {
	Logger klog.Logger
	// Observer is told about each request; nil for nobody.
	Observer Observer
	// AllowRedirect reports whether a request may follow a redirect to another address,
	// a URL of scheme, host and port. If it is nil, no redirect is followed.
	AllowRedirect func(address string) bool
}

// ClientPool makes the clients of a node. Clients of one endpoint share a transport,
// a circuit breaker and what is known of mounts; endpoints of one address share the
// limit of requests in flight. It may be used concurrently.
//
// The vault/api client reads VAULT_* variables even where a setting is given;
// whoever makes a pool clears them from the environment first.
type ClientPool struct {
	config   Config
	now      func() time.Time
	inFlight *inFlight
	large    *fairqueue.Limiter // places of volumes that read much
	// decoding lets one long response be decoded at a time: that takes several times its
	// length, and CPU time.
	decoding *fairqueue.Limiter

	mutex     sync.Mutex
	endpoints map[Endpoint]*endpointClient
}

const (
	// requestsInFlight keep one node from being a burst that Vault's other clients
	// feel, and one tenant from taking the places of the others. Vault answers a login in
	// milliseconds, so that the pods of a whole node pass through in a second.
	requestsInFlight = 32
	// idleTTL is how long an endpoint is kept after its last use. Volumes use theirs
	// every 5 minutes. A rotated certificate leaves an endpoint that nobody uses again.
	idleTTL = 10 * time.Minute
	// maxEndpoints is for pods that bring their own certificates. One namespace's are at
	// most half of them, so that it cannot evict what others use.
	maxEndpoints, maxEndpointsOfNamespace = 128, 64
)

// NewClientPool returns an empty pool.
func NewClientPool(c Config) *ClientPool {
	return &ClientPool{
		config: c, now: time.Now, inFlight: newInFlight(int64(limits.NodeResponseBytes.Max())),
		large: fairqueue.New(largeVolumes), decoding: fairqueue.NewWithShare(1, 1), endpoints: map[Endpoint]*endpointClient{},
	}
}

// Close drops all idle connections.
func (p *ClientPool) Close() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, each := range p.endpoints {
		each.transport.CloseIdleConnections()
	}
}

// BreakerOpen reports for the address of each Vault in use whether a circuit breaker
// is open. An endpoint that nobody uses is left out: only a request closes its breaker.
func (p *ClientPool) BreakerOpen() map[string]bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.evictLocked()
	open := map[string]bool{}
	for endpoint, each := range p.endpoints {
		open[endpoint.Address] = open[endpoint.Address] || each.breaker.isOpen()
	}
	return open
}

// endpointClient is what the clients of one endpoint share.
type endpointClient struct {
	endpoint  Endpoint
	transport *http.Transport
	limited   *transport
	breaker   *breaker
	places    *fairqueue.Limiter
	decoding  *fairqueue.Limiter
	observer  Observer
	mounts    *mounts
	tastes    *tastes
	// Under ClientPool.mutex.
	lastUsed  time.Time
	namespace string // of the only pods that use it; severalNamespaces, or "" for none
}

const severalNamespaces = "*"

// get returns the shared part of an endpoint's clients.
func (p *ClientPool) get(ctx context.Context, endpoint Endpoint) (*endpointClient, error) {
	namespace := fairqueue.Tenant(ctx)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	known := p.endpoints[endpoint]
	if known == nil {
		created, err := p.newEndpointClient(endpoint)
		if err != nil {
			return nil, fmt.Errorf("prepare a client for Vault at %s: %w", endpoint.Address, err)
		}
		known, p.endpoints[endpoint] = created, created
		defer p.evictLocked()
	}
	known.lastUsed = p.now()
	if known.namespace == "" {
		known.namespace = namespace
	} else if namespace != "" && namespace != known.namespace {
		known.namespace = severalNamespaces
	}
	return known, nil
}

// evictLocked drops what was not used for long, and of too many the least recently
// used. Requests in flight go on; net/http closes their connections when these are idle.
func (p *ClientPool) evictLocked() {
	byUse := slices.SortedFunc(maps.Values(p.endpoints), func(a, b *endpointClient) int { return b.lastUsed.Compare(a.lastUsed) })
	kept, keptOf := 0, map[string]int{}
	for _, each := range byUse {
		isShared := each.namespace == "" || each.namespace == severalNamespaces
		isOver := kept >= maxEndpoints || !isShared && keptOf[each.namespace] >= maxEndpointsOfNamespace
		if isOver || p.now().Sub(each.lastUsed) >= idleTTL {
			delete(p.endpoints, each.endpoint)
			each.transport.CloseIdleConnections()
			continue
		}
		kept++
		keptOf[each.namespace]++
	}
}

func (p *ClientPool) newEndpointClient(endpoint Endpoint) (*endpointClient, error) {
	wire, err := endpoint.newTransport(p.now())
	if err != nil {
		return nil, err
	}
	limited := &transport{next: wire, places: p.placesLocked(endpoint.Address), observer: p.config.Observer, follows: p.config.AllowRedirect}
	limited.breaker = &breaker{logger: p.config.Logger, address: endpoint.Address, probe: limited.probe(endpoint.Address)}
	return &endpointClient{
		endpoint: endpoint, transport: wire, limited: limited, breaker: limited.breaker, places: limited.places, decoding: p.decoding,
		observer: p.config.Observer, mounts: newMounts(), tastes: newTastes(),
	}, nil
}

// placesLocked are those for requests in flight to an address.
func (p *ClientPool) placesLocked(address string) *fairqueue.Limiter {
	for endpoint, each := range p.endpoints {
		if endpoint.Address == address {
			return each.places
		}
	}
	return fairqueue.New(requestsInFlight)
}

// newAPIClient returns a client without a token.
func (e *endpointClient) newAPIClient(options ClientOptions) (*api.Client, error) {
	config := &api.Config{
		Address:    e.endpoint.Address,
		HttpClient: &http.Client{Transport: e.limited, CheckRedirect: keepRedirect},
		Timeout:    defaultTimeout,
		MaxRetries: defaultRetries,
		CheckRetry: shouldRetry,
		Backoff:    backOff,
	}
	if options.Timeout > 0 {
		config.Timeout = options.Timeout
	}
	if options.MaxRetries != 0 {
		config.MaxRetries = max(options.MaxRetries, 0)
	}
	config.MinRetryWait, config.MaxRetryWait = options.backoff()
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("prepare a client for Vault at %s: %w", e.endpoint.Address, err)
	}
	if options.Namespace != "" {
		client.SetNamespace(options.Namespace)
	}
	return client, nil
}

// keepRedirect leaves redirects to the vault client, once the transport has checked
// where they lead.
func keepRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
