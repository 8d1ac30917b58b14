package webhook

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/httpserver"
)

// Certificate is the serving certificate. Implementations may be called concurrently, and
// answer at once.
type Certificate interface {
	// Current returns the certificate to use now, its Leaf parsed. The error says why
	// there is none yet.
	Current() (*tls.Certificate, error)
}

// Bounds of a listener. A connection takes some 50 KiB of the pod's memory; an API
// server sends one review at a time over each.
const (
	headerTimeout        = 5 * time.Second
	requestTimeout       = 10 * time.Second
	maxHeader            = 8 << 10 // bytes; an API server sends less than one KiB
	maxConnections       = 256
	maxHealthConnections = 32       // for kubelets and Prometheus
	receiveBuffer        = 32 << 10 // bytes that the kernel receives before the program reads
)

// Server answers reviews at POST /mutate over TLS. It serves health and metrics on a
// listener without TLS, which works with any certificate.
type Server struct {
	Handler     *Handler
	Certificate Certificate
	// Now is the clock for the end of the certificate.
	Now func() time.Time
}

// Serve runs until the context ends or a listener fails, and closes both listeners.
// Requests in flight are answered.
func (s *Server) Serve(ctx context.Context, reviews, health net.Listener) error {
	logger := klog.FromContext(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		logger.Info("Serving reviews", logAddress, reviews.Addr().String())
		secured := tls.NewListener(limitConnections(reviews, maxConnections), &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate.Current() },
		})
		if err := httpserver.Serve(ctx, secured, newServer(s.reviewRoutes())); err != nil {
			return fmt.Errorf("serve reviews: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		logger.Info("Serving health and metrics", logAddress, health.Addr().String())
		if err := httpserver.Serve(ctx, limitConnections(health, maxHealthConnections), newServer(s.healthRoutes())); err != nil {
			return fmt.Errorf("serve health and metrics: %w", err)
		}
		return nil
	})
	return group.Wait()
}

func (s *Server) reviewRoutes() http.Handler {
	routes := http.NewServeMux()
	routes.Handle("POST /mutate", s.Handler)
	return routes
}

func (s *Server) healthRoutes() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", func(writer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(writer, "ok") })
	routes.HandleFunc("GET /readyz", s.ready)
	routes.Handle("GET /metrics", s.Handler.metrics.Handler())
	return routes
}

func newServer(routes http.Handler) *http.Server {
	// With HTTP/2, reviews that wait to be read fill the window of their connection, and
	// block those behind them, of whatever tenant.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: routes, Protocols: protocols, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
	}
}

// ready fails when the API server would not accept the certificate.
func (s *Server) ready(writer http.ResponseWriter, _ *http.Request) {
	current, err := s.Certificate.Current()
	if err == nil && s.Now().After(current.Leaf.NotAfter) {
		err = fmt.Errorf("the certificate has expired at %s", current.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if err != nil {
		http.Error(writer, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(writer, "ok")
}

// connections is a listener that bounds its connections. Above the bound, the host with
// the most connections loses its oldest one, so a host that opens many cannot keep an API
// server out, and nobody waits.
type connections struct {
	net.Listener
	max    int
	mutex  sync.Mutex
	total  int
	byHost map[string][]*connection // oldest first
}

func limitConnections(listener net.Listener, max int) *connections {
	return &connections{Listener: listener, max: max, byHost: map[string][]*connection{}}
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := accepted.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(receiveBuffer) // after a failure the kernel's default counts
	}
	host, _, _ := net.SplitHostPort(accepted.RemoteAddr().String())
	c := &connection{Conn: accepted, listener: l, host: host}
	if displaced := l.add(c); displaced != nil {
		_ = displaced.Close() // its host may be gone
	}
	return c, nil
}

// add returns the connection to close, if there is one.
func (l *connections) add(c *connection) (displaced *connection) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.byHost[c.host] = append(l.byHost[c.host], c)
	if l.total++; l.total <= l.max {
		return nil
	}
	var most []*connection
	for _, open := range l.byHost {
		if len(open) > len(most) {
			most = open
		}
	}
	return most[0]
}

type connection struct {
	net.Conn
	listener *connections
	host     string
	removed  sync.Once
}

// Close implements net.Conn. It may be called more than once.
func (c *connection) Close() error {
	c.removed.Do(func() { c.listener.remove(c) })
	return c.Conn.Close()
}

func (l *connections) remove(c *connection) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.total--
	open := slices.DeleteFunc(l.byHost[c.host], func(other *connection) bool { return other == c })
	if l.byHost[c.host] = open; len(open) == 0 {
		delete(l.byHost, c.host)
	}
}
