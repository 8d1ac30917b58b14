package rig

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	state "github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	worker "github.com/vaultmount/vaultmount/provider/sandbox"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// InProcess is a driver in the process of the test, so that the race detector sees
// it. Its templates are confined as the DaemonSet's are, in processes of the real
// program. It may be started again after Stop.
type InProcess struct {
	Config driver.Config
	Clock  clock.Clock
	Log    *Log
	// Sharing is provider.ShareNothing if empty.
	Sharing provider.Sharing

	// These are of the last Start.
	Calls    csi.NodeClient
	Provider *provider.Provider
	Stop     func() // what is mounted stays
}

// NewConfig is how a driver of a test is set up, in front of a Vault at an address.
func NewConfig(kubeletRoot, address string) driver.Config {
	const mebibyte = 1 << 20
	return driver.Config{
		Name: DriverName, Version: "test", NodeName: "node-1", KubeletRoot: kubeletRoot, VolumeSize: mebibyte, MaxVolumeSize: 16 * mebibyte,
		Vault: driver.VaultConfig{Address: address, ReadCA: func() (string, error) { return "", nil }},
	}
}

// Start runs the driver; the one before must have been stopped. It ends with the
// test at the latest.
func (d *InProcess) Start(t testing.TB) {
	t.Helper()
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(d.Log), textlogger.Verbosity(10)))
	workers := worker.New(logger, worker.Config{Program: Program(t), Limits: worker.Limits{Idle: time.Second}})
	if err := workers.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mounter, err := tmpfs.NewMounter(DriverName)
	if err != nil {
		t.Fatal(err)
	}
	socket := driver.DefaultEndpoint(d.Config.KubeletRoot, d.Config.Name)
	opened := make(chan struct{})
	plugin, err := driver.NewPlugin(d.Config, socket, func(ctx context.Context, locked func() error) (*driver.Charge, error) {
		defer close(opened)
		return d.open(ctx, locked, logger, mounter, workers)
	}, metrics.NewRecorder("test", "test"))
	if err != nil {
		t.Fatal(err)
	}
	connection, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	d.Calls = csi.NewNodeClient(connection)
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logger))
	ended := make(chan error, 1)
	go func() {
		ended <- plugin.Run(ctx)
		connection.Close() // calls fail at once instead of waiting for a driver
	}()
	<-opened
	d.Stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the driver ended: %v", err)
		}
		stopping, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := workers.Stop(stopping); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(d.Stop)
}

// open takes charge of the node's volumes, as the program does.
func (d *InProcess) open(ctx context.Context, locked func() error, logger klog.Logger, mounter *tmpfs.Mounter, workers *worker.Pool) (*driver.Charge, error) {
	directory := driver.StateDirectory(d.Config.KubeletRoot, d.Config.Name)
	waiting, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	lock, err := state.Acquire(waiting, directory)
	if err != nil {
		return nil, err
	}
	if err := locked(); err != nil {
		return nil, err
	}
	private, err := mounter.OpenStateMount(directory, state.Size)
	if err != nil {
		return nil, err
	}
	store, err := state.Open(logger, private)
	if err != nil {
		return nil, err
	}
	mounts, err := driver.NewMounts(logger, mounter, store)
	if err != nil {
		return nil, err
	}
	mounts.FindUnrecorded(d.Config.KubeletRoot)
	secrets := provider.NewProvider(provider.ProviderConfig{
		Logger: logger, Clients: vault.NewClientPool(vault.Config{Logger: logger}), Renderer: workers,
		Files: mounts, Store: store, Clock: d.Clock, Sharing: d.Sharing,
	})
	volumes, err := driver.New(d.Config, mounts, secrets)
	if err != nil {
		return nil, err
	}
	if err := secrets.Resume(ctx, mounts.IsMounted); err != nil {
		return nil, err
	}
	d.Provider = secrets
	return &driver.Charge{Driver: volumes, Reporter: secrets, State: private, Close: func(ctx context.Context, _ bool) error {
		secrets.Stop(ctx)
		return errors.Join(store.Close(), lock.Release())
	}}, nil
}
