package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// requestTimeout bounds one request, and those in flight when a server stops.
const requestTimeout = 5 * time.Second

// Checks answer the kubelet's probes. They may be called concurrently.
type Checks struct {
	// Alive fails when only a restart can help, Ready when the kubelet does not reach this
	// process. Neither depends on Vault: a restart does not bring it back.
	Alive, Ready func(ctx context.Context) error
}

// Handler serves /healthz, /readyz and /metrics.
func Handler(checks Checks, recorder *Recorder) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /healthz", probe(checks.Alive))
	routes.Handle("GET /readyz", probe(checks.Ready))
	routes.Handle("GET /metrics", recorder.Handler())
	return routes
}

func probe(check func(context.Context) error) http.HandlerFunc {
	return func(writer http.ResponseWriter, request *http.Request) {
		if err := check(request.Context()); err != nil {
			http.Error(writer, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(writer, "ok")
	}
}

// Serve answers requests until ctx ends, then waits for the requests in flight. It closes
// the listener.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout,
		// This program silences the standard logger, where net/http reports panics.
		ErrorLog:    slog.NewLogLogger(logr.ToSlogHandler(klog.FromContext(ctx)), slog.LevelError),
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	err := server.Shutdown(stopping)
	if ended := <-done; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
