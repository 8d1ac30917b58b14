package kubeletplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// maxSocketPath is what fits into sockaddr_un with its final zero.
const maxSocketPath = 107

// socket is a listener with the file that leads to it.
type socket struct {
	*net.UnixListener

	path string
	file os.FileInfo
}

// listen replaces the socket that an earlier instance left at a path. It binds under a hidden
// name and renames: whoever sees the final name can connect to it.
func listen(path string) (*socket, error) {
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if len(hidden) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: a socket path has at most %d bytes; shorten --kubelet-root or --driver-name", path, maxSocketPath-1)
	}
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove a stale socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// The next instance puts its own socket at the path, which must not go with this one.
	listener.SetUnlinkOnClose(false)
	file, err := os.Lstat(hidden)
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("move the socket into place: %w", err), listener.Close())
	}
	return &socket{UnixListener: listener, path: path, file: file}, nil
}

// isInPlace reports whether who connects to the path reaches this process.
func (s *socket) isInPlace() bool {
	current, err := os.Lstat(s.path)
	return err == nil && os.SameFile(current, s.file)
}

// remove removes the file, unless it leads to another instance by now.
func (s *socket) remove() error {
	if !s.isInPlace() {
		return nil
	}
	if err := os.Remove(s.path); err != nil {
		return fmt.Errorf("remove the socket: %w", err)
	}
	return nil
}
