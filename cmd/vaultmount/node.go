package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/apiserver"
	"github.com/vaultmount/vaultmount/driver/monitor"
	"github.com/vaultmount/vaultmount/driver/state"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/render/worker"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// stopTimeout is what the processes that run templates get to end.
const stopTimeout = 10 * time.Second

// node is what one process of the driver works with, whether it has charge of the
// volumes or not.
type node struct {
	config    driver.Config
	logger    klog.Logger
	mounter   *tmpfs.Mounter
	renderers *worker.Pool
	metrics   *monitor.Metrics
	api       *rest.Config // nil unless something is asked of the API server
	events    bool
}

func (o *driverOptions) run(ctx context.Context, logs io.Writer) (err error) {
	if err := forbidDumps(); err != nil {
		return err
	}
	if err := clearVaultEnvironment(); err != nil {
		return err
	}
	// consul-template logs through the global logger, with words of its own choice.
	log.SetOutput(io.Discard)
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(logs), textlogger.Verbosity(o.verbosity)))
	ctx = klog.NewContext(ctx, logger)
	n, err := o.node(logger)
	if err != nil {
		return err
	}
	o.vault.warn(logger)
	plugin, err := driver.NewPlugin(n.config, o.socket(), n.open, n.metrics)
	if err != nil {
		return err
	}
	n.metrics.Read(plugin.Numbers)
	// Where templates cannot be confined, none is run.
	if err := n.renderers.Start(ctx); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err = errors.Join(err, n.renderers.Stop(stopping))
	}()
	return o.serve(ctx, n, plugin)
}

func (o *driverOptions) serve(ctx context.Context, n *node, plugin *driver.Plugin) error {
	group, ctx := errgroup.WithContext(ctx)
	if o.listen != "" {
		listener, err := net.Listen("tcp", o.listen)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		n.logger.Info("Serving health and metrics", "address", listener.Addr().String())
		routes := monitor.Routes(monitor.Checks{Alive: plugin.Alive, Ready: plugin.Ready}, n.metrics)
		group.Go(func() error { return monitor.Serve(ctx, listener, routes) })
	}
	if o.removeTaint != "" {
		group.Go(func() error { o.untaint(ctx, n, plugin); return nil })
	}
	group.Go(func() error { return plugin.Run(ctx) })
	return group.Wait()
}

// untaint removes the start-up taint as soon as pods with volumes can start here.
// It tries until it succeeds: without it, no pod comes to the node.
func (o *driverOptions) untaint(ctx context.Context, n *node, plugin *driver.Plugin) {
	if plugin.AwaitReady(ctx) != nil {
		return // the process ends
	}
	backoff := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 6, Cap: time.Minute}
	_ = backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) { // ends with ctx at the latest
		err := apiserver.RemoveTaint(ctx, n.api, n.config.NodeName, o.removeTaint)
		if err != nil {
			n.logger.Error(err, "Start-up taint not removed; trying again", "taint", o.removeTaint)
			return false, nil
		}
		n.logger.Info("Start-up taint is not on the node any more", "taint", o.removeTaint)
		return true, nil
	})
}

func (o *driverOptions) socket() string {
	if o.endpoint == "" {
		return driver.DefaultEndpoint(o.kubeletRoot, o.driverName)
	}
	return o.endpoint
}

func (o *driverOptions) node(logger klog.Logger) (*node, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure the driver: %w", err)
	}
	n := &node{config: config, logger: logger, metrics: monitor.NewMetrics(version, goVersion()), events: o.events}
	if o.events || o.removeTaint != "" {
		if n.api, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("find the API server, which --events and --remove-taint are for: %w", err)
		}
		n.api.Timeout, n.api.UserAgent = apiTimeout, "vaultmount-driver/"+version
	}
	if n.mounter, err = tmpfs.NewMounter(); err != nil {
		return nil, err
	}
	logger.Info("Volumes are tmpfs", "noswap", n.mounter.NoSwap())
	n.renderers = worker.New(logger, worker.Config{Limits: worker.Limits{CPU: o.templateCPU}, Killed: n.metrics.Killed})
	return n, nil
}

// open takes charge of the volumes of the node.
func (n *node) open(ctx context.Context) (*driver.Charge, error) {
	directory := driver.StateDirectory(n.config.KubeletRoot, n.config.Name)
	lock, err := state.Acquire(ctx, directory)
	if err != nil {
		return nil, err
	}
	charge, err := n.resume(directory, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return charge, nil
}

func (n *node) resume(directory string, lock *state.Lock) (*driver.Charge, error) {
	store, err := state.Open(n.mounter, directory)
	if err != nil {
		return nil, err
	}
	mounts, err := driver.NewMounts(n.logger, n.mounter, store)
	if err != nil {
		return nil, err
	}
	observer, err := n.observe(mounts)
	if err != nil {
		return nil, err
	}
	servers := vault.NewServers(n.logger, time.Now)
	servers.Observe(n.metrics)
	secrets := provider.New(provider.Config{
		Logger: n.logger, Servers: servers, Renderer: n.metrics.Renderer(n.renderers),
		Files: mounts, Store: store, Clock: clock.RealClock{}, Observer: observer,
	})
	stop := func(ctx context.Context) {
		secrets.Stop(ctx)
		observer.stop()
	}
	volumes, err := driver.New(n.config, mounts, secrets)
	if err == nil {
		err = secrets.Resume(mounts.IsMounted)
	}
	if err != nil {
		stop(context.Background())
		return nil, err
	}
	return &driver.Charge{Driver: volumes, Reporter: secrets, Close: func(ctx context.Context, takenOver bool) error {
		stop(ctx)
		if takenOver {
			return lock.Release()
		}
		return errors.Join(store.Discard(), lock.Remove())
	}}, nil
}

// observer hears of what happens in the background: metrics, and Events if they
// are wanted.
type observer struct {
	*monitor.Metrics

	events *apiserver.Events // nil for none
}

func (n *node) observe(mounts *driver.Mounts) (observer, error) {
	o := observer{Metrics: n.metrics}
	if !n.events {
		return o, nil
	}
	var err error
	o.events, err = apiserver.NewEvents(klog.NewContext(context.Background(), n.logger), n.api, n.config.NodeName, mounts.Pod, n.metrics.Event)
	return o, err
}

func (o observer) stop() {
	if o.events != nil {
		o.events.Stop()
	}
}

// Refreshed implements provider.Observer.
func (o observer) Refreshed(volumeID string, before, now error) {
	o.Metrics.Refreshed(volumeID, before, now)
	if o.events != nil {
		o.events.Refreshed(volumeID, before, now)
	}
}
