package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	state "github.com/vaultmount/vaultmount/driver/checkpoint"
	apiserver "github.com/vaultmount/vaultmount/driver/kube"
	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	worker "github.com/vaultmount/vaultmount/provider/sandbox"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// node is what one process of the driver works with, whether it has charge of the
// volumes or not.
type node struct {
	config    driver.Config
	logger    klog.Logger
	mounter   *tmpfs.Mounter
	renderers *worker.Pool
	metrics   *metrics.Recorder
	sharing   provider.Sharing
	api       *rest.Config // nil unless something is asked of the API server
	events    bool
}

func (o *driverOptions) node(logger klog.Logger) (*node, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("configure the driver: %w", err)
	}
	limitDriverMemory(config.VolumeCapacity)
	sharing, err := provider.ParseSharing(o.shareLogins)
	if err != nil {
		return nil, fmt.Errorf("--share-logins: %w", err)
	}
	n := &node{config: config, sharing: sharing, logger: logger, metrics: metrics.NewRecorder(version, goVersion()), events: o.events}
	if o.events || o.startupTaint != "" {
		if n.api, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("find the API server, which --events and --startup-taint are for: %w", err)
		}
		n.api.Timeout, n.api.UserAgent = apiTimeout, "vaultmount-driver/"+version
	}
	if n.mounter, err = tmpfs.NewMounter(config.Name); err != nil {
		return nil, err
	}
	logger.Info("Volumes are tmpfs", "noswap", n.mounter.NoSwap())
	n.renderers = worker.New(logger, worker.Config{Limits: worker.Limits{CPU: o.templateCPU}, Killed: n.metrics.Killed})
	return n, nil
}

// lockTimeout is how long to wait for a process that is about to end.
const lockTimeout = 5 * time.Second

// open takes charge of the volumes of the node; it is a driver.Opener.
func (n *node) open(ctx context.Context, locked func() error) (*driver.Charge, error) {
	directory := driver.StateDirectory(n.config.KubeletRoot, n.config.Name)
	waiting, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	lock, err := state.Acquire(waiting, directory)
	if err != nil {
		return nil, err
	}
	var charge *driver.Charge
	if err = locked(); err == nil {
		charge, err = n.resume(ctx, directory, lock)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return charge, nil
}

func (n *node) resume(ctx context.Context, directory string, lock *state.Lock) (*driver.Charge, error) {
	private, err := n.mounter.OpenStateMount(directory, state.Size)
	if err != nil {
		return nil, fmt.Errorf("mount the state: %w", err)
	}
	store, err := state.Open(n.logger, private)
	if err != nil {
		return nil, err
	}
	charge, stop, err := n.charge(ctx, store)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	charge.State = private
	charge.Close = func(ctx context.Context, takenOver bool) error {
		stop(ctx)
		if takenOver {
			return errors.Join(store.Close(), lock.Release())
		}
		return errors.Join(store.Discard(), lock.Remove())
	}
	return charge, nil
}

// charge goes on with what the store holds. With stop, what runs in the background
// ends.
func (n *node) charge(ctx context.Context, store *state.Store) (charge *driver.Charge, stop func(context.Context), err error) {
	boot, err := state.CurrentBoot()
	if err != nil {
		return nil, nil, err
	}
	mounts, err := driver.NewMounts(n.logger, n.mounter, store)
	if err != nil {
		return nil, nil, err
	}
	mounts.FindUnrecorded(n.config.KubeletRoot)
	observer, err := n.observe(mounts)
	if err != nil {
		return nil, nil, err
	}
	clients := vault.NewClientPool(vault.Config{Logger: n.logger, Observer: n.metrics, AllowRedirect: n.config.Vault.Addresses.Allows})
	secrets := provider.NewProvider(provider.ProviderConfig{
		Logger: n.logger, Clients: clients, Renderer: n.metrics.Renderer(n.renderers),
		Files: mounts, Store: store, Clock: clock.RealClock{}, Boot: boot, Observer: observer, Sharing: n.sharing,
	})
	stop = func(ctx context.Context) {
		secrets.Stop(ctx)
		observer.stop()
		mounts.Close()
	}
	volumes, err := driver.New(n.config, mounts, secrets)
	if err == nil {
		err = secrets.Resume(ctx, mounts.IsMounted)
	}
	if err != nil {
		stop(context.Background())
		return nil, nil, err
	}
	return &driver.Charge{Driver: volumes, Reporter: secrets}, stop, nil
}

// observer hears of what happens in the background: metrics, and Events if they
// are wanted.
type observer struct {
	*metrics.Recorder

	events *apiserver.Events // nil for none
}

func (n *node) observe(mounts *driver.Mounts) (observer, error) {
	o := observer{Recorder: n.metrics}
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
	o.Recorder.Refreshed(volumeID, before, now)
	if o.events != nil {
		o.events.Refreshed(volumeID, before, now)
	}
}
