package vault

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"k8s.io/klog/v2"
)

// Servers are the Vaults of a node. There is one transport for each endpoint and
// one gate for each address, whoever asks. It may be used concurrently.
//
// The vault/api client reads VAULT_* variables even where a setting is given;
// whoever runs Servers clears them from the environment first.
type Servers struct {
	logger   klog.Logger
	now      func() time.Time
	observer Observer

	mutex sync.Mutex
	open  map[Endpoint]*server
	gates map[string]*gate // by address
}

// NewServers returns no servers yet. now is the node's clock: certificates are held
// against it, and Vault's, and it tells who is idle.
func NewServers(logger klog.Logger, now func() time.Time) *Servers {
	return &Servers{logger: logger, now: now, open: map[Endpoint]*server{}, gates: map[string]*gate{}}
}

// Observe has an observer hear of all requests. It is called before the first of
// them.
func (s *Servers) Observe(observer Observer) { s.observer = observer }

// HeldBack reports for the address of each Vault in use whether requests are held
// back, as the last ones failed. One that nobody uses any more is left out: its
// circuit would stay open, as only a request closes it.
func (s *Servers) HeldBack() map[string]bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.evictLocked()
	held := map[string]bool{}
	for endpoint, each := range s.open {
		held[endpoint.Address] = held[endpoint.Address] || each.circuit.isOpen()
	}
	return held
}

// server is an endpoint in use.
type server struct {
	endpoint  Endpoint
	clients   *clients
	transport *http.Transport
	circuit   *circuit
	offset    *offset
	mounts    *mounts
	tastes    *tastes
	// Under Servers.mutex.
	sessions  int
	idleSince time.Time // if there are none
}

// acquire returns the server of an endpoint, made if need be. Each acquire is
// followed by one release.
func (s *Servers) acquire(endpoint Endpoint) (*server, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if known := s.open[endpoint]; known != nil {
		known.sessions++
		return known, nil
	}
	created, err := s.newServer(endpoint)
	if err != nil {
		return nil, fmt.Errorf("prepare a client for Vault at %s: %w", endpoint.Address, err)
	}
	created.sessions = 1
	s.open[endpoint] = created
	return created, nil
}

const (
	// idleFor is how long a server without sessions is kept with its circuit, what it
	// has learnt of mounts, and its connections. Sessions last for one go, and a volume's
	// next is DefaultInterval of the provider away, 5 minutes. A certificate that was
	// rotated leaves a server that nobody asks for again.
	idleFor = 10 * time.Minute
	// mostIdle bounds them for pods that bring certificates of their own, as many as a
	// node takes by default, and some.
	mostIdle = 128
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
	slices.SortFunc(idle, func(a, b *server) int { return a.idleSince.Compare(b.idleSince) })
	for i, each := range idle {
		if len(idle)-i <= mostIdle && s.now().Sub(each.idleSince) < idleFor {
			return
		}
		delete(s.open, each.endpoint)
		each.transport.CloseIdleConnections()
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
	transport, err := endpoint.newTransport(s.now())
	if err != nil {
		return nil, err
	}
	shared := s.gates[endpoint.Address]
	if shared == nil {
		shared = newGate(requestsInFlight)
		s.gates[endpoint.Address] = shared
	}
	limited := &limitedTransport{next: transport, gate: shared, circuit: newCircuit(s.logger, endpoint.Address), observer: s.observer, offset: &offset{}, now: s.now}
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
	return &server{endpoint: endpoint, clients: newClients(client), transport: transport, circuit: limited.circuit, offset: limited.offset, mounts: newMounts(), tastes: newTastes()}, nil
}

// keepRedirect leaves redirects to the vault client, which checks that a
// redirect does not lead from https to http before it sends the token there.
func keepRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
