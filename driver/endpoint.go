package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// maxSocketPath is what fits into sockaddr_un with its final zero.
const maxSocketPath = 107

// probeTimeout is below that of a kubelet's probe, so that its log says why.
const probeTimeout = 900 * time.Millisecond

// bind makes a unix socket under a hidden name, which nobody looks at. Whoever sees the
// final name, which it has after place, can connect to it.
func bind(path string) (*socket, error) {
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
	// The next process puts its own socket there, which must not go with this one.
	listener.SetUnlinkOnClose(false)
	file, err := os.Lstat(hidden)
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("look at the socket: %w", err)
	}
	return &socket{drainable: newDrainable(listener), service: service{path: path}, hidden: hidden, file: file}, nil
}

// listen is bind and place.
func listen(path string) (*socket, error) {
	s, err := bind(path)
	if err != nil {
		return nil, err
	}
	return s, s.place()
}

// socket is a listener with the file that leads to it.
type socket struct {
	*drainable
	service

	hidden string
	file   os.FileInfo
}

// place moves the socket to its path, in place of the one that an earlier process left.
func (s *socket) place() error {
	if err := os.Rename(s.hidden, s.path); err != nil {
		return errors.Join(fmt.Errorf("move the socket into place: %w", err), s.discard())
	}
	return nil
}

// discard is for a socket that is not in place.
func (s *socket) discard() error {
	_ = s.Close() // nobody has found it
	if err := os.Remove(s.hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a socket: %w", err)
	}
	return nil
}

// isFound reports whether somebody who connects to the path reaches this process, or
// another one that has taken its place. A file is not enough: the other one may have been
// killed since.
func (s *socket) isFound() bool {
	there, err := os.Lstat(s.path)
	if err != nil {
		return false
	}
	if os.SameFile(there, s.file) {
		return true
	}
	connection, err := net.DialTimeout("unix", s.path, probeTimeout)
	if err != nil {
		return false
	}
	_ = connection.Close() // nothing was sent
	return true
}

// remove takes the file away, unless it leads to another process by now.
func (s *socket) remove() error {
	there, err := os.Lstat(s.path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(there, s.file) {
		return nil
	}
	if err == nil {
		err = os.Remove(s.path)
	}
	if err != nil {
		return fmt.Errorf("remove the socket: %w", err)
	}
	return nil
}

// probe asks after the driver as the kubelet does, on a connection of its own.
func probe(ctx context.Context, socket string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if _, err := csi.NewIdentityClient(connection).Probe(ctx, &csi.ProbeRequest{}); err != nil {
		return fmt.Errorf("ask the driver on %s: %w", socket, err)
	}
	return nil
}
