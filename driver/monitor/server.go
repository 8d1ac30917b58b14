package monitor

import (
	"context"
	"encoding/json"
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
	// Alive is an error when only a new process can help, Ready one when the kubelet
	// does not reach this process. Neither asks after Vault: no restart mends that.
	Alive, Ready func(ctx context.Context) error
}

// Routes are /healthz, /readyz and /metrics.
func Routes(checks Checks, metrics *Metrics) http.Handler {
	routes := http.NewServeMux()
	routes.Handle("GET /healthz", probe(checks.Alive))
	routes.Handle("GET /readyz", probe(checks.Ready))
	routes.Handle("GET /metrics", metrics.Handler())
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

// VolumesPath is where a node's volumes are served.
const VolumesPath = "/volumes"

// VolumeRoutes serve what the driver knows of its volumes. It names pods and paths,
// so it belongs on a socket that only root reaches.
func VolumeRoutes(volumes func() []Volume) http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET "+VolumesPath, func(writer http.ResponseWriter, request *http.Request) {
		writer.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(writer).Encode(volumes()); err != nil {
			klog.FromContext(request.Context()).V(4).Info("List of volumes not sent", "reason", err.Error())
		}
	})
	return routes
}

// Serve answers requests until ctx ends, and returns when those in flight are
// answered. It closes the listener.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout,
		// The standard logger is silent in this program.
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
