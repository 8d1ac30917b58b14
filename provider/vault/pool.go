// Package vault logs in to Vault, and reads, lists, writes, renews and revokes with the
// token of one login. README.md follows a request through its files.
//
// It never touches the file system, starts no refresh by itself, keeps no secret that it has
// returned, and puts no token into an error. Of this module it imports limits, fairqueue
// and recovery.
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

// ClientPool makes the clients of a node. It may be used concurrently.
//
// The api.Client reads VAULT_* variables even where a setting is given. Whoever makes a
// pool clears them from the environment first.
type ClientPool struct {
	config     Config
	now        func() time.Time
	memory     *nodeMemory
	largeReads *fairqueue.Limiter // slots of volumes that read large secrets
	decoding   *fairqueue.Limiter // one long response at a time: that takes memory and CPU time

	mutex     sync.Mutex
	endpoints map[Endpoint]*endpointClient
}

const (
	// requestsInFlight bounds the requests to one address. One node is then no burst that
	// Vault's other clients feel. Vault answers a login in milliseconds, so the pods of a
	// whole node pass in a second.
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
		config: c, now: time.Now, memory: newNodeMemory(int64(limits.NodeResponseBytes.Max())),
		largeReads: fairqueue.New(largeVolumeSlots), decoding: fairqueue.NewWithShare(1, 1), endpoints: map[Endpoint]*endpointClient{},
	}
}

// Close drops all idle connections.
func (p *ClientPool) Close() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, each := range p.endpoints {
		each.http.CloseIdleConnections()
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

// Client returns a client for the token of an earlier login, on the account of the
// namespace of ctx (fairqueue.WithTenant). It sends no request. The error is ErrInvalid
// for certificates that cannot be used.
func (p *ClientPool) Client(ctx context.Context, endpoint Endpoint, options ClientOptions, token Token) (*Client, error) {
	options.MinBackoff, options.MaxBackoff = 0, 0 // these are for logins
	client, err := p.newClient(ctx, endpoint, options)
	if err != nil {
		return nil, err
	}
	client.api.SetToken(token.Secret)
	return client, nil
}

// newClient returns a client without a token. It takes about 10 microseconds.
func (p *ClientPool) newClient(ctx context.Context, endpoint Endpoint, options ClientOptions) (*Client, error) {
	var client *api.Client
	used, err := p.get(ctx, endpoint)
	if err == nil {
		client, err = api.NewClient(options.config(endpoint.Address, used.http))
	}
	if err != nil {
		return nil, fmt.Errorf("prepare a client for Vault at %s: %w", endpoint.Address, err)
	}
	if options.Namespace != "" {
		client.SetNamespace(options.Namespace)
	}
	return &Client{endpoint: used, api: client}, nil
}

const severalNamespaces = "*"

// get returns what the clients of an endpoint share.
func (p *ClientPool) get(ctx context.Context, endpoint Endpoint) (*endpointClient, error) {
	namespace := fairqueue.Tenant(ctx)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	used := p.endpoints[endpoint]
	if used == nil {
		wire, err := endpoint.newTransport(p.now())
		if err != nil {
			return nil, err
		}
		used = p.newEndpointClient(endpoint.Address, wire)
		p.endpoints[endpoint] = used
		defer p.evictLocked()
	}
	used.lastUsed = p.now()
	if used.namespace == "" {
		used.namespace = namespace
	} else if namespace != "" && namespace != used.namespace {
		used.namespace = severalNamespaces
	}
	return used, nil
}

func (p *ClientPool) newEndpointClient(address string, wire http.RoundTripper) *endpointClient {
	created := &endpointClient{pool: p, address: address, wire: wire, limiter: p.limiterLocked(address), mounts: newMountCache()}
	created.breaker = &breaker{logger: p.config.Logger, address: address, probe: created.probe}
	created.http = &http.Client{Transport: created, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the api.Client follows redirects that the transport allows
	}}
	return created
}

// limiterLocked is that of the address: endpoints that differ in their certificates share it.
func (p *ClientPool) limiterLocked(address string) *fairqueue.Limiter {
	for _, each := range p.endpoints {
		if each.address == address {
			return each.limiter
		}
	}
	return fairqueue.New(requestsInFlight)
}

// evictLocked drops what was not used for long, and of too many the least recently
// used. Requests in flight go on; net/http closes their connections when these are idle.
func (p *ClientPool) evictLocked() {
	byUse := slices.SortedFunc(maps.Keys(p.endpoints), func(a, b Endpoint) int {
		return p.endpoints[b].lastUsed.Compare(p.endpoints[a].lastUsed)
	})
	kept, keptOf := 0, map[string]int{}
	for _, endpoint := range byUse {
		each := p.endpoints[endpoint]
		isShared := each.namespace == "" || each.namespace == severalNamespaces
		isOver := kept >= maxEndpoints || !isShared && keptOf[each.namespace] >= maxEndpointsOfNamespace
		if isOver || p.now().Sub(each.lastUsed) >= idleTTL {
			delete(p.endpoints, endpoint)
			each.http.CloseIdleConnections()
			continue
		}
		kept++
		keptOf[each.namespace]++
	}
}
