package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Certificate is what the webhook serves with. Implementations may be called
// concurrently and answer at once.
type Certificate interface {
	// Current returns the certificate to use now, its Leaf parsed. The error says
	// why there is none yet.
	Current() (*tls.Certificate, error)
}

// Bounds of one request, and of those that are in flight when the server stops.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	stopTimeout    = 10 * time.Second
	maxHeader      = 8 << 10 // bytes; an API server sends less than one KiB
)

// Server answers reviews at POST /mutate over TLS. Health and metrics are served
// apart and without TLS, so that they can be asked when the certificate is what
// is wrong.
type Server struct {
	Handler     *Handler
	Certificate Certificate
	// Now is the clock that a certificate's end is compared with.
	Now func() time.Time
}

// Serve runs until the context ends or a listener fails, and closes both
// listeners. Requests in flight are answered.
func (s *Server) Serve(ctx context.Context, reviews, health net.Listener) error {
	logger := klog.FromContext(ctx)
	overTLS := s.server(ctx, s.reviewRoutes())
	overTLS.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Certificate.Current() },
	}
	plain := s.server(ctx, s.healthRoutes())
	logger.Info("Serving reviews", logAddress, reviews.Addr().String())
	logger.Info("Serving health and metrics", logAddress, health.Addr().String())

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() {
		cancel(fmt.Errorf("serve reviews: %w", overTLS.ServeTLS(newConnections(reviews, maxConnections), "", "")))
	})
	running.Go(func() {
		cancel(fmt.Errorf("serve health and metrics: %w", plain.Serve(newConnections(health, maxHealthConnections))))
	})
	<-ctx.Done()
	cause := context.Cause(ctx)
	stopping, stop := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer stop()
	err := errors.Join(overTLS.Shutdown(stopping), plain.Shutdown(stopping))
	running.Wait()
	if errors.Is(cause, context.Canceled) {
		return err
	}
	return errors.Join(cause, err)
}

func (s *Server) server(ctx context.Context, handler http.Handler) *http.Server {
	logger := klog.FromContext(ctx)
	// With HTTP/2, reviews that wait to be read fill the window of their connection, and
	// those behind them are not read either, whoever they are of.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		// Requests in flight go on when the context ends.
		BaseContext: func(net.Listener) context.Context { return klog.NewContext(context.WithoutCancel(ctx), logger) },
		ErrorLog:    slog.NewLogLogger(logr.ToSlogHandler(logger.V(levelHandshake)), slog.LevelInfo),
	}
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

// ready fails when the API server would not trust an answer.
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
