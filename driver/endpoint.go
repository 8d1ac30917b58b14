package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
)

// maxSocketPath is what fits into sockaddr_un with its final zero.
const maxSocketPath = 107

// listen makes a unix socket at path, in place of the one that an earlier process
// left. It is bound under a hidden name first, which the kubelet does not look
// at, so that whoever sees the final name can connect to it.
func listen(path string) (net.Listener, error) {
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if len(hidden) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: a socket path has at most %d bytes; shorten --kubelet-root or --driver-name", path, maxSocketPath-1)
	}
	if err := os.Remove(hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove a stale socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The socket outlives the process: without its file, the kubelet would take
	// the driver off the node at each restart and keep pods from being deleted.
	listener.SetUnlinkOnClose(false)
	if err := os.Rename(hidden, path); err != nil {
		listener.Close()
		return nil, fmt.Errorf("move the socket into place: %w", err)
	}
	return listener, nil
}

// serve answers calls until ctx ends, and returns when the last handler has.
// Handlers see the end of their own call's context alone, so that a publish that
// has begun may finish; the grace period of the pod bounds it.
func serve(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
		server.GracefulStop()
		return <-done
	}
}
