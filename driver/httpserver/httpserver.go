// Package httpserver runs HTTP servers with bounded requests until their context ends. It
// knows nothing of what they serve, and imports nothing of ours.
package httpserver

import (
	"cmp"
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

// The bounds of a server that has none of its own.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 5 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// stopTimeout is for the requests in flight when the context ends.
	stopTimeout = 10 * time.Second
)

// Serve answers requests until ctx ends, then waits for those in flight. It closes the
// listener. It logs a panic of the handler, and what net/http reports itself, with the
// logger of ctx.
func Serve(ctx context.Context, listener net.Listener, server *http.Server) error {
	server.ReadHeaderTimeout = cmp.Or(server.ReadHeaderTimeout, headerTimeout)
	server.ReadTimeout = cmp.Or(server.ReadTimeout, readTimeout)
	server.WriteTimeout = cmp.Or(server.WriteTimeout, writeTimeout)
	server.IdleTimeout = cmp.Or(server.IdleTimeout, idleTimeout)
	server.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	// This program silences the standard logger, where net/http reports panics.
	server.ErrorLog = slog.NewLogLogger(logr.ToSlogHandler(klog.FromContext(ctx)), slog.LevelError)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := server.Shutdown(stopping)
	if ended := <-done; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
