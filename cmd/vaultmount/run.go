package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/httpserver"
	"github.com/vaultmount/vaultmount/driver/kube"
	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/sandbox"
	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// handOffTimeout bounds what the standby waits for: the calls in progress, and what
	// runs in the background. The kubelet repeats a call that is cut short.
	handOffTimeout = 2 * time.Second
	// drainTimeout is for the calls in progress when no standby waits. It is a little less
	// than the kubelet waits for them.
	drainTimeout = 115 * time.Second
	// stopTimeout is for what runs in the background, and for the sandbox. The next
	// instance continues what is left.
	stopTimeout = 10 * time.Second
)

// instance is one process of the driver. Its parts are built in the order of the fields.
type instance struct {
	config  driver.Config
	logger  klog.Logger
	metrics *metrics.Recorder
	api     *rest.Config // nil unless Events or the taint need the API server
	sharing provider.Sharing
	mounter *tmpfs.Mounter
	pool    *sandbox.Pool
	plugin  *kubeletplugin.Plugin
	calls   *driver.NodeServer
	server  *driver.Server
	// active is nil until the volumes are restored.
	active atomic.Pointer[node]
}

// run builds the parts, waits for its turn, and serves until ctx ends.
func (o *driverOptions) run(ctx context.Context, logs io.Writer) (err error) {
	if err := disableCoreDumps(); err != nil {
		return err
	}
	if err := clearVaultEnvironment(); err != nil {
		return err
	}
	// consul-template logs through the global logger, with words of its own choice.
	log.SetOutput(io.Discard)
	logger, err := o.log.newLogger(logs)
	if err != nil {
		return err
	}
	ctx = klog.NewContext(ctx, logger)
	i, err := o.build(logger)
	if err != nil {
		return err
	}
	o.vault.warn(logger)
	// Where templates cannot be confined, none is run.
	if err := i.pool.Start(ctx); err != nil {
		return err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err = errors.Join(err, i.pool.Stop(stopping))
	}()
	group, ctx := errgroup.WithContext(ctx)
	if o.listen != "" {
		listener, err := net.Listen("tcp", o.listen)
		if err != nil {
			return fmt.Errorf("--metrics-bind-address: %w", err)
		}
		logger.Info("Serving health and metrics", "address", listener.Addr().String())
		routes := metrics.Handler(metrics.Checks{Alive: i.plugin.Alive, Ready: i.plugin.Ready}, i.metrics)
		group.Go(func() error { return httpserver.Serve(ctx, listener, &http.Server{Handler: routes}) })
	}
	if o.startupTaint != "" {
		group.Go(func() error { i.removeTaint(ctx, o.startupTaint); return nil })
	}
	group.Go(func() error { return i.serve(ctx, o.events) })
	return group.Wait()
}

// build does all that may fail for a configuration or a kernel, and touches nothing.
func (o *driverOptions) build(logger klog.Logger) (*instance, error) {
	config, err := o.config()
	if err != nil {
		return nil, usageError{err}
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure the driver: %w", err)
	}
	limitDriverMemory(config.VolumeCapacity)
	i := &instance{config: config, logger: logger, metrics: metrics.NewRecorder(version, runtime.Version())}
	if i.sharing, err = provider.ParseSharing(o.shareLogins); err != nil {
		return nil, fmt.Errorf("--share-logins: %w", err)
	}
	if o.events || o.startupTaint != "" {
		if i.api, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("find the API server, which --events and --startup-taint need: %w", err)
		}
		i.api.Timeout, i.api.UserAgent = apiTimeout, "vaultmount-driver/"+version
	}
	if i.mounter, err = tmpfs.NewMounter(config.Name); err != nil {
		return nil, err
	}
	logger.Info("Volumes are tmpfs", "noswap", i.mounter.NoSwap())
	i.pool = sandbox.New(logger, sandbox.Config{Limits: sandbox.Limits{CPU: o.templateCPU, Output: config.MaxVolumeSize}, Killed: i.metrics.ObserveWorkerKill})
	i.plugin = kubeletplugin.New(logger, kubeletplugin.Config{Name: config.Name, KubeletRoot: config.KubeletRoot, Endpoint: o.endpoint})
	i.calls = driver.NewNodeServer(config)
	i.server = driver.NewServer(logger, i.calls, i.metrics)
	i.metrics.RegisterNode(i.stats)
	return i, nil
}

// serve is the life of an instance: standby, active, stopped.
func (i *instance) serve(ctx context.Context, events bool) error {
	if err := i.plugin.Activate(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // it was a standby to its end
		}
		return err
	}
	err := i.serveActive(ctx, events)
	return errors.Join(err, i.stop())
}

// serveActive answers probes and calls before the volumes are restored; calls for volumes
// wait for that.
func (i *instance) serveActive(ctx context.Context, events bool) error {
	err := i.plugin.Serve(i.server.Serve, kubeletplugin.Service{
		Path: kubeletplugin.StatusSocket(i.config.KubeletRoot, i.config.Name),
		Serve: func(listener net.Listener) error {
			return httpserver.Serve(ctx, listener, &http.Server{Handler: status.Handler(i)})
		},
	})
	if err != nil {
		return err
	}
	n, err := i.restore(ctx, events)
	if err != nil {
		if ctx.Err() != nil {
			return nil // it was told to stop meanwhile
		}
		return err
	}
	i.active.Store(n)
	i.calls.Start(n.volumes)
	if err := i.plugin.Register(); err != nil {
		return err
	}
	collecting, stopCollecting := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { n.volumes.CollectOrphans(collecting) })
	defer background.Wait()
	defer stopCollecting()
	select {
	case <-ctx.Done():
		return nil
	case err := <-i.plugin.Failed():
		return err
	}
}

// stop finishes the calls in progress, saves the volumes, and lets a standby take over.
func (i *instance) stop() error {
	handOff, err := i.plugin.BeginStop()
	timeout := drainTimeout
	if handOff {
		timeout = handOffTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	i.server.Stop(ctx)
	if !handOff {
		cancel()
		ctx, cancel = context.WithTimeout(context.Background(), stopTimeout)
	}
	defer cancel()
	if n := i.active.Swap(nil); n != nil {
		err = errors.Join(err, n.close(ctx, handOff))
	}
	return errors.Join(err, i.plugin.Stop(handOff), i.plugin.Release())
}

// node are the parts that only the active instance has.
type node struct {
	state    *tmpfs.StateMount
	store    *checkpoint.Store
	events   *kube.Events // nil for none
	provider *provider.Manager
	volumes  *volumes.Manager
}

// restore continues with what the instance before has saved. It asks no Vault.
func (i *instance) restore(ctx context.Context, events bool) (*node, error) {
	state, err := i.mounter.OpenStateMount(kubeletplugin.StateDirectory(i.config.KubeletRoot, i.config.Name), checkpoint.Size)
	if err != nil {
		return nil, fmt.Errorf("mount the state: %w", err)
	}
	n := &node{state: state}
	if n.store, err = checkpoint.Open(i.logger, state); err != nil {
		return nil, err
	}
	if err = i.restoreVolumes(ctx, n, events); err != nil {
		stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		return nil, errors.Join(err, n.close(stopping, true))
	}
	return n, nil
}

func (i *instance) restoreVolumes(ctx context.Context, n *node, events bool) (err error) {
	if events {
		if n.events, err = kube.NewEvents(klog.NewContext(context.Background(), i.logger), i.api, i.config.NodeName, i.metrics.ObserveEvent); err != nil {
			return err
		}
	}
	n.provider = provider.New(provider.Config{
		Logger:   i.logger,
		Clients:  vault.NewClientPool(vault.Config{Logger: i.logger, Observer: i.metrics, AllowRedirect: i.config.Vault.Addresses.Allows}),
		Renderer: i.metrics.Renderer(i.pool), Store: n.store, Clock: clock.RealClock{}, Uptime: checkpoint.Uptime,
		Revoked: i.metrics.ObserveRevocation, Sharing: i.sharing,
	})
	n.volumes = volumes.New(volumes.Config{
		Logger: i.logger, Mounter: i.mounter, Store: n.store, Provider: n.provider, KubeletRoot: i.config.KubeletRoot,
		Capacity: i.config.VolumeCapacity, NamespaceQuota: i.config.NamespaceQuota(),
		Refreshed: func(v volumes.Volume, result error, isNews bool) {
			i.metrics.ObserveRefresh(result)
			if n.events != nil && isNews {
				n.events.Refreshed(kube.Volume{Namespace: v.Pod.Namespace, Pod: v.Pod.Name, PodUID: v.Pod.UID, Name: v.Name()}, result)
			}
		},
	})
	if err := n.provider.RestoreSessions(ctx); err != nil {
		return err
	}
	if err := n.volumes.Restore(ctx); err != nil {
		return err
	}
	n.provider.FinishRestore()
	return nil
}

// close saves what the next instance needs. Without a next one, nothing is left on the node
// that it need not.
func (n *node) close(ctx context.Context, keep bool) error {
	if n.provider != nil {
		n.provider.Shutdown(ctx)
	}
	if n.events != nil {
		n.events.Stop()
	}
	if n.volumes != nil {
		n.volumes.Close()
	}
	if keep {
		return n.store.Close()
	}
	return n.store.Discard()
}

// Volumes implements status.Source.
func (i *instance) Volumes() []status.Volume {
	n := i.active.Load()
	if n == nil {
		return []status.Volume{}
	}
	return n.volumes.List()
}

// Refresh implements status.Source.
func (i *instance) Refresh(ctx context.Context, volumeID string) error {
	n := i.active.Load()
	if n == nil {
		return errors.New("this instance of the driver is not active")
	}
	return n.volumes.Refresh(ctx, volumeID)
}

// stats are the gauges of the node. Unless this instance is active, all but the limits
// are zero.
func (i *instance) stats() metrics.NodeStats {
	stats := metrics.NodeStats{Capacity: i.config.VolumeCapacity, NamespaceQuota: i.config.NamespaceQuota(), Registered: i.plugin.IsRegistered()}
	n := i.active.Load()
	if n == nil {
		return stats
	}
	stats.Stats = n.provider.Stats(n.volumes.Statuses())
	stats.BreakerOpen = i.config.Vault.Labels(stats.BreakerOpen)
	usage := n.volumes.Usage()
	stats.VolumesMemory = metrics.Memory{Used: usage.Files, Size: usage.Capacity}
	stats.LargestNamespace, stats.Unrecorded = usage.LargestNamespace, usage.Unrecorded
	stats.CheckpointsMounted = n.state.IsAttached()
	if usage, err := n.state.Usage(); err == nil {
		stats.CheckpointMemory = metrics.Memory{Used: usage.BytesUsed, Size: checkpoint.Records}
	}
	return stats
}

// removeTaint removes the start-up taint as soon as pods with volumes can start here.
// It tries until it succeeds: without it, no pod comes to the node.
func (i *instance) removeTaint(ctx context.Context, taint string) {
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(context.Context) (bool, error) { return i.plugin.IsRegistered(), nil })
	if err != nil {
		return // the process ends
	}
	backoff := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 6, Cap: time.Minute}
	_ = backoff.DelayFunc().Until(ctx, true, true, func(ctx context.Context) (bool, error) { // ends with ctx at the latest
		err := kube.RemoveTaint(ctx, i.api, i.config.NodeName, taint)
		if err != nil {
			i.logger.Error(err, "Start-up taint not removed; trying again", "taint", taint)
			return false, nil
		}
		i.logger.Info("Removed startup taint", "taint", taint)
		return true, nil
	})
}
