package vault

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Servers are the Vaults of a node. There is one transport for each endpoint, and the
// places for requests in flight are those of an address, whoever asks. It may be used
// concurrently.
//
// The vault/api client reads VAULT_* variables even where a setting is given;
// whoever runs Servers clears them from the environment first.
type Servers struct {
	logger   klog.Logger
	now      func() time.Time
	observer Observer
	follows  func(address string) bool
	inFlight *inFlight
	large    *fairqueue.Limiter // places of volumes that read much
	// decoding is one place for the decoding of a long response: it takes several
	// times its length while it lasts, and the time of a processor.
	decoding *fairqueue.Limiter

	mutex  sync.Mutex
	open   map[Endpoint]*server
	places map[string]*places // by address
}

// places are those for requests in flight to one address.
type places struct {
	*fairqueue.Limiter

	servers int // that use them
}

// NewServers returns no servers yet. now is the node's clock: certificates are held
// against it, and Vault's, and it tells who is idle.
func NewServers(logger klog.Logger, now func() time.Time) *Servers {
	return &Servers{
		logger: logger, now: now, inFlight: newInFlight(int64(limits.NodeResponseBytes.Max())), large: fairqueue.New(largeVolumes), decoding: fairqueue.NewWithShare(1, 1),
		open: map[Endpoint]*server{}, places: map[string]*places{},
	}
}

// Observe has an observer hear of all requests. It is called before the first of
// them.
func (s *Servers) Observe(observer Observer) { s.observer = observer }

// FollowRedirects allows redirects to other hosts, by scheme, host and port. By default
// none is followed. It is called before the first request.
func (s *Servers) FollowRedirects(allowed func(address string) bool) { s.follows = allowed }

// HeldBack reports for the address of each Vault in use whether requests are held
// back, as the last ones failed. One that nobody uses any more is left out: its
// breaker would stay open, as only a request closes it.
func (s *Servers) HeldBack() map[string]bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.evictLocked()
	held := map[string]bool{}
	for endpoint, each := range s.open {
		held[endpoint.Address] = held[endpoint.Address] || each.breaker.isOpen()
	}
	return held
}

// server is an endpoint in use.
type server struct {
	endpoint  Endpoint
	clients   *clients
	transport *http.Transport
	breaker   *breaker
	decoding  *fairqueue.Limiter
	observer  Observer
	offset    *offset
	mounts    *mounts
	tastes    *tastes
	// Under Servers.mutex.
	sessions  int
	idleSince time.Time // if there are none
	tenant    string    // who uses it alone, severalTenants, or "" for nobody known
}

const severalTenants = "*"

func (s *server) usedBy(tenant string) {
	switch {
	case s.tenant == "":
		s.tenant = tenant
	case tenant != "" && tenant != s.tenant:
		s.tenant = severalTenants
	}
}

// acquire returns the server of an endpoint for the tenant of a context, made if need
// be. Each acquire is followed by one release.
func (s *Servers) acquire(ctx context.Context, endpoint Endpoint) (*server, error) {
	tenant := fairqueue.Tenant(ctx)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known := s.open[endpoint]; known != nil {
		known.sessions++
		known.usedBy(tenant)
		return known, nil
	}
	if tenant != "" && s.inUse(tenant) >= mostInUse {
		return nil, fmt.Errorf("prepare a client for Vault at %s: %w: the pods of namespace %s use %d other addresses, certificates or proxies at this time", endpoint.Address, ErrUnavailable, tenant, mostInUse)
	}
	created, err := s.newServer(endpoint)
	if err != nil {
		return nil, fmt.Errorf("prepare a client for Vault at %s: %w", endpoint.Address, err)
	}
	created.sessions, created.tenant = 1, tenant
	s.open[endpoint] = created
	return created, nil
}

// inUse counts the servers with sessions of one tenant alone. The mutex is held.
func (s *Servers) inUse(tenant string) int {
	count := 0
	for _, each := range s.open {
		if each.tenant == tenant && each.sessions > 0 {
			count++
		}
	}
	return count
}

const (
	// mostInUse bounds the servers with sessions of one tenant alone: as many as a node
	// has pods, each with a certificate of its own.
	mostInUse = 256
	// idleFor is how long a server without sessions is kept with its circuit, what it
	// has learnt of mounts, and its connections. Sessions last for one go, and a volume's
	// next is DefaultInterval of the provider away, 5 minutes. A certificate that was
	// rotated leaves a server that nobody asks for again.
	idleFor = 10 * time.Minute
	// mostIdle bounds them for pods that bring certificates of their own, as many as a
	// node takes by default, and some. One tenant's alone are half of them at most, so
	// that it cannot push out what others have learnt.
	mostIdle, mostIdleOfTenant = 128, 64
)

func (s *Servers) release(used *server) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	used.sessions--
	used.idleSince = s.now()
	s.evictLocked()
}

// evictLocked drops the servers that were idle for long, and of too many those that
// were for longest. The mutex is held.
func (s *Servers) evictLocked() {
	var idle []*server
	for _, each := range s.open {
		if each.sessions == 0 {
			idle = append(idle, each)
		}
	}
	// The longest idle come last.
	slices.SortFunc(idle, func(a, b *server) int { return b.idleSince.Compare(a.idleSince) })
	kept, keptOf := 0, map[string]int{}
	for _, each := range idle {
		isAlone := each.tenant != "" && each.tenant != severalTenants
		isLimited := isAlone && keptOf[each.tenant] >= mostIdleOfTenant
		if kept >= mostIdle || isLimited || s.now().Sub(each.idleSince) >= idleFor {
			s.dropLocked(each)
			continue
		}
		kept++
		keptOf[each.tenant]++
	}
}

func (s *Servers) dropLocked(each *server) {
	address := each.endpoint.Address
	delete(s.open, each.endpoint)
	each.transport.CloseIdleConnections()
	if s.places[address].servers--; s.places[address].servers == 0 {
		delete(s.places, address)
	}
}

// Close drops all idle connections.
func (s *Servers) Close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, each := range s.open {
		each.transport.CloseIdleConnections()
	}
}

func (s *Servers) newServer(endpoint Endpoint) (*server, error) {
	wire, err := endpoint.newTransport(s.now())
	if err != nil {
		return nil, err
	}
	limited := &transport{next: wire, observer: s.observer, offset: &offset{}, now: s.now, follows: s.follows}
	limited.breaker = &breaker{logger: s.logger, address: endpoint.Address, probe: limited.probe(endpoint.Address)}
	client, err := api.NewClient(&api.Config{
		Address:    endpoint.Address,
		HttpClient: &http.Client{Transport: limited, CheckRedirect: keepRedirect},
		Timeout:    defaultTimeout,
		MaxRetries: defaultRetries,
		CheckRetry: shouldRetry,
		Backoff:    backOff,
	})
	if err != nil {
		return nil, err
	}
	shared := s.places[endpoint.Address]
	if shared == nil {
		shared = &places{Limiter: fairqueue.New(requestsInFlight)}
		s.places[endpoint.Address] = shared
	}
	shared.servers++
	limited.places = shared.Limiter
	return &server{
		endpoint: endpoint, clients: newClients(client), transport: wire, breaker: limited.breaker, decoding: s.decoding, observer: s.observer,
		offset: limited.offset, mounts: newMounts(), tastes: newTastes(),
	}, nil
}

// keepRedirect leaves redirects to the vault client, once the transport has checked
// where they lead.
func keepRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
