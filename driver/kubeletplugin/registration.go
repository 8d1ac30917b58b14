package kubeletplugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// The kubelet watches plugins_registry, connects to each socket there and asks which
// plugin it is: no node-driver-registrar container is needed. The kubelet takes a driver
// off the node for a second whenever a file there is replaced. So the socket is elsewhere,
// and plugins_registry has a link to it. The link stays when the next instance replaces
// the socket.

// registrationServer answers the kubelet behind the link.
type registrationServer struct {
	registration.UnimplementedRegistrationServer

	plugin *Plugin
}

// GetInfo implements registration.RegistrationServer.
func (s registrationServer) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:     registration.CSIPlugin,
		Name:     s.plugin.config.Name,
		Endpoint: s.plugin.config.Endpoint,
		// The version of CSI, by which the kubelet tells two drivers of one name apart.
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus implements registration.RegistrationServer. After a refusal
// the kubelet tries again by itself.
func (s registrationServer) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	s.plugin.setRegistered(status.GetPluginRegistered())
	if status.GetPluginRegistered() {
		s.plugin.logger.Info("Registered with the kubelet", logDriver, s.plugin.config.Name)
	} else {
		s.plugin.logger.Error(nil, "The kubelet refuses the driver", logDriver, s.plugin.config.Name, logReason, status.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (c Config) registrationSocket() string { return filepath.Join(c.directory(), "reg.sock") }

func (c Config) registry() string { return filepath.Join(c.KubeletRoot, "plugins_registry") }

// links returns the links of this driver in plugins_registry.
func (c Config) links() ([]string, error) {
	entries, err := os.ReadDir(c.registry())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the registrations: %w", err)
	}
	var links []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), c.Name+"-reg") && strings.HasSuffix(entry.Name(), ".sock") {
			links = append(links, filepath.Join(c.registry(), entry.Name()))
		}
	}
	return links, nil
}

// Register makes the kubelet call the driver. It keeps the link of an instance that has
// handed the node off: that one leaves it only if the kubelet has registered the driver.
// Otherwise it makes a link under a new name, since the kubelet waits longer each time for
// a name that it failed to reach, as after a reboot. Two names at once would be two drivers
// to the kubelet, so the old ones go first.
func (p *Plugin) Register() error {
	links, err := p.config.links()
	if err != nil {
		return err
	}
	registered := p.wasStandby && len(links) == 1
	if !registered {
		if err := removeAll(links); err != nil {
			return err
		}
		if err := p.config.link(); err != nil {
			return err
		}
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.registered = p.registered || registered
	p.phase = serving
	return nil
}

func (c Config) link() error {
	link := filepath.Join(c.registry(), fmt.Sprintf("%s-reg-%s.sock", c.Name, rand.Text()[:8]))
	if len(link) > maxSocketPath {
		return fmt.Errorf("register the driver at %s: a socket path has at most %d bytes; shorten --kubelet-root or --driver-name", link, maxSocketPath)
	}
	target, err := filepath.Rel(c.registry(), c.registrationSocket())
	if err == nil {
		err = os.Symlink(target, link)
	}
	if err != nil {
		return fmt.Errorf("register the driver: %w", err)
	}
	return nil
}

// unregister makes the kubelet take the driver off the node.
func (p *Plugin) unregister() error {
	links, err := p.config.links()
	if err != nil {
		return err
	}
	return removeAll(links)
}

func removeAll(links []string) error {
	var errs []error
	for _, link := range links {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a registration: %w", err))
		}
	}
	return errors.Join(errs...)
}

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
