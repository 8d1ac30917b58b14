package vault

import (
	"fmt"
	"net/http"
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

// NewServers returns no servers yet. now is the node's clock: certificates
// are held against it, and Vault's.
func NewServers(logger klog.Logger, now func() time.Time) *Servers {
	return &Servers{logger: logger, now: now, open: map[Endpoint]*server{}, gates: map[string]*gate{}}
}

// Observe has an observer hear of all requests. It is called before the first of
// them.
func (s *Servers) Observe(observer Observer) { s.observer = observer }

// HeldBack reports for the address of each Vault in use whether requests are held
// back, as the last ones failed.
func (s *Servers) HeldBack() map[string]bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
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
	sessions  int // under Servers.mutex
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

// keptIdle is how many servers without sessions are kept with their connections:
// the next pod comes soon.
const keptIdle = 8

func (s *Servers) release(used *server) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	used.sessions--
	if used.sessions > 0 || len(s.open) <= keptIdle {
		return
	}
	delete(s.open, used.endpoint)
	used.transport.CloseIdleConnections()
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
