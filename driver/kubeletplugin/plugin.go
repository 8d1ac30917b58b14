// Package kubeletplugin makes a process a plugin of the kubelet: the lock that makes one
// instance active, the unix sockets, the registration, and the answers to probes.
//
// It knows neither volumes nor CSI messages beyond Probe, and imports none of our packages.
package kubeletplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	logDriver = "driver"
	logReason = "reason"
	logSocket = "socket"
)

// Config names the plugin and its place below the kubelet's directory.
type Config struct {
	// Name is that of the CSIDriver object.
	Name string
	// KubeletRoot is the kubelet's --root-dir, an absolute path.
	KubeletRoot string
	// Endpoint is the path of the CSI socket; empty for Endpoint(KubeletRoot, Name).
	Endpoint string
}

// Endpoint returns the conventional path of the CSI socket.
func Endpoint(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "csi.sock")
}

// StatusSocket returns the conventional path of the socket that lists the volumes.
func StatusSocket(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "status.sock")
}

// StateDirectory returns the conventional path of the records of the volumes.
func StateDirectory(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "state")
}

func (c Config) directory() string { return filepath.Join(c.KubeletRoot, "plugins", c.Name) }

// phase is what an instance does, in the order of its life.
type phase int

const (
	starting phase = iota
	standby
	restoring
	serving
	stopping
)

// Plugin is one instance of the driver on its node. Its methods are called in this order:
// Activate, Serve, Register, BeginStop, Stop, Release. Alive, Ready and IsRegistered may be
// called concurrently at any time.
type Plugin struct {
	config Config
	logger klog.Logger

	lock       *Lock
	wasStandby bool
	sockets    []*socket // CSI, registration, and others
	server     *grpc.Server
	serving    sync.WaitGroup
	failed     chan error

	mutex      sync.Mutex
	phase      phase
	registered bool
}

// New returns a plugin. It touches nothing before Activate.
func New(logger klog.Logger, config Config) *Plugin {
	config.KubeletRoot = filepath.Clean(config.KubeletRoot)
	if config.Endpoint == "" {
		config.Endpoint = Endpoint(config.KubeletRoot, config.Name)
	}
	return &Plugin{config: config, logger: logger, failed: make(chan error, 1)}
}

// Activate makes this the active instance. While another one is, this is its standby, and
// Activate waits until ctx ends. Whoever calls it has done all that may fail for a version
// or a configuration: Kubernetes stops the other instance once a standby is ready.
func (p *Plugin) Activate(ctx context.Context) error {
	// Only root may reach the sockets: whoever does can mount.
	for _, directory := range []string{p.config.directory(), filepath.Dir(p.config.Endpoint)} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return fmt.Errorf("create the directory of the sockets: %w", err)
		}
	}
	lock, err := acquire(ctx, p.config.directory(), func() {
		p.wasStandby = true
		p.logger.Info("Another instance is active; entering standby")
		p.setPhase(standby)
	})
	if err != nil {
		return err
	}
	p.lock = lock
	p.setPhase(restoring)
	return nil
}

// Service answers on a unix socket. Serve returns when the listener is closed.
type Service struct {
	Path  string
	Serve func(net.Listener) error
}

// Serve answers CSI by serve, the kubelet's registration, and other services, on sockets that
// replace those of the instance before. An error of a service goes to Failed.
func (p *Plugin) Serve(serve func(net.Listener) error, others ...Service) error {
	p.server = grpc.NewServer()
	registration.RegisterRegistrationServer(p.server, registrationServer{plugin: p})
	services := append([]Service{{p.config.Endpoint, serve}, {p.config.registrationSocket(), p.server.Serve}}, others...)
	for _, service := range services {
		socket, err := listen(service.Path)
		if err != nil {
			return err
		}
		p.sockets = append(p.sockets, socket)
		p.serving.Go(func() {
			err := service.Serve(socket)
			if err == nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case p.failed <- fmt.Errorf("serve on %s: %w", service.Path, err):
			default: // one failure is enough to stop
			}
		})
	}
	p.logger.Info("Serving", logDriver, p.config.Name, logSocket, p.config.Endpoint)
	return nil
}

// Failed receives the first error of a service.
func (p *Plugin) Failed() <-chan error { return p.failed }

// BeginStop reports whether a standby takes over. If none does, or if the kubelet does not
// know the driver, it removes the registration, so that the kubelet sends no more calls.
func (p *Plugin) BeginStop() (handOff bool, err error) {
	p.setPhase(stopping)
	handOff, err = p.lock.hasStandby()
	if handOff && p.IsRegistered() {
		p.logger.Info("Handing the node off to the standby instance")
		return true, err
	}
	return handOff, errors.Join(err, p.unregister())
}

// Stop closes the sockets. It leaves their files to a standby that takes over: a link to
// a missing socket would be no registration for a kubelet that starts now.
// Services must have stopped, or stop when their listener is closed. The lock stays until
// Release.
func (p *Plugin) Stop(handOff bool) error {
	var errs []error
	for _, each := range p.sockets {
		if !handOff {
			errs = append(errs, each.remove())
		}
		_ = each.Close() // a second time, if its server has
	}
	if p.server != nil {
		p.server.Stop()
	}
	p.serving.Wait()
	return errors.Join(errs...)
}

// Release lets a standby become active.
func (p *Plugin) Release() error { return p.lock.Release() }

func (p *Plugin) setPhase(next phase) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.phase = next
}

func (p *Plugin) setRegistered(registered bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.registered = registered
}

// state returns the phase and whether the kubelet knows the driver.
func (p *Plugin) state() (phase, bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.phase, p.registered
}

// IsRegistered reports whether the kubelet knows this instance, as far as can be told.
func (p *Plugin) IsRegistered() bool {
	now, registered := p.state()
	return registered && now >= restoring && p.checkLink() == nil
}

// Ready is an error unless this instance is a standby, or is active and known to the
// kubelet. A ready standby makes Kubernetes stop the active instance.
func (p *Plugin) Ready(context.Context) error {
	switch now, registered := p.state(); {
	case now == standby:
		return nil
	case now == starting:
		return errors.New("the driver is starting")
	case now == restoring:
		return errors.New("the volumes of the node are not restored yet")
	case now == stopping:
		return errors.New("the driver is stopping")
	case !registered:
		return errors.New("the kubelet has not registered the driver yet")
	}
	return p.checkLink()
}

// probeTimeout is below that of the kubelet's probe, so that its log shows the cause.
const probeTimeout = 900 * time.Millisecond

// Alive is an error if the kubelet cannot reach an active instance, which nothing but a
// restart changes: the registration, or a socket, was removed, or CSI does not answer.
func (p *Plugin) Alive(ctx context.Context) error {
	now, _ := p.state()
	if now != restoring && now != serving {
		return nil
	}
	if now == serving {
		if err := p.checkFiles(); err != nil {
			return err
		}
	}
	return probe(ctx, p.config.Endpoint)
}

func (p *Plugin) checkFiles() error {
	for _, each := range p.sockets[:2] { // CSI and registration
		if !each.isInPlace() {
			return fmt.Errorf("socket %s was removed or replaced", each.path)
		}
	}
	return p.checkLink()
}

func (p *Plugin) checkLink() error {
	links, err := p.config.links()
	if err != nil {
		return err
	}
	if len(links) == 0 {
		return fmt.Errorf("the registration in %s was removed", p.config.registry())
	}
	return nil
}

// probe calls the driver as the kubelet does, on a connection of its own.
func probe(ctx context.Context, socket string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if _, err := csi.NewIdentityClient(connection).Probe(ctx, &csi.ProbeRequest{}); err != nil {
		return fmt.Errorf("probe the driver on %s: %w", socket, err)
	}
	return nil
}
