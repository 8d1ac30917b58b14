package rig

import (
	"context"
	"errors"
	"net"
	"net/http"
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
	"github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/httpserver"
	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/sandbox"
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
	Volumes  *volumes.Manager
	Provider *provider.Manager
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
	workers := sandbox.New(logger, sandbox.Config{Program: Program(t), Limits: sandbox.Limits{Idle: time.Second}})
	must(t, workers.Start(t.Context()))
	mounter, err := tmpfs.NewMounter(DriverName)
	must(t, err)
	plugin := kubeletplugin.New(logger, kubeletplugin.Config{Name: d.Config.Name, KubeletRoot: d.Config.KubeletRoot})
	node := driver.NewNodeServer(d.Config)
	server := driver.NewServer(logger, node, metrics.NewRecorder("test", "test"))
	must(t, plugin.Activate(t.Context()))
	private, err := mounter.OpenStateMount(kubeletplugin.StateDirectory(d.Config.KubeletRoot, d.Config.Name), checkpoint.Size)
	must(t, err)
	store, err := checkpoint.Open(logger, private)
	must(t, err)
	d.Provider = provider.New(provider.Config{
		Logger: logger, Clients: vault.NewClientPool(vault.Config{Logger: logger}), Renderer: workers,
		Store: store, Clock: d.Clock, Sharing: d.Sharing,
	})
	d.Volumes = volumes.New(volumes.Config{
		Logger: logger, Mounter: mounter, Store: store, Provider: d.Provider, KubeletRoot: d.Config.KubeletRoot,
		Capacity: d.Config.VolumeCapacity, NamespaceQuota: d.Config.NamespaceQuota(),
	})
	must(t, d.Provider.RestoreSessions(t.Context()))
	must(t, d.Volumes.Restore(t.Context()))
	d.Provider.FinishRestore()
	node.Start(d.Volumes)
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logger))
	must(t, plugin.Serve(server.Serve, kubeletplugin.Service{
		Path: kubeletplugin.StatusSocket(d.Config.KubeletRoot, d.Config.Name),
		Serve: func(listener net.Listener) error {
			return httpserver.Serve(ctx, listener, &http.Server{Handler: status.Handler(source{d.Volumes})})
		},
	}))
	must(t, plugin.Register())
	var background sync.WaitGroup
	background.Go(func() { d.Volumes.CollectOrphans(ctx) })
	connection, err := grpc.NewClient("unix://"+kubeletplugin.Endpoint(d.Config.KubeletRoot, d.Config.Name),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(t, err)
	d.Calls = csi.NewNodeClient(connection)
	d.Stop = sync.OnceFunc(func() {
		cancel()
		background.Wait()
		stopping, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := plugin.BeginStop()
		server.Stop(stopping)
		d.Provider.Shutdown(stopping)
		d.Volumes.Close()
		err = errors.Join(err, store.Close(), plugin.Stop(false), plugin.Release(), workers.Stop(stopping))
		connection.Close() // calls fail at once instead of waiting for a driver
		if err != nil {
			t.Errorf("the driver ended: %v", err)
		}
	})
	t.Cleanup(d.Stop)
}

// source lists the volumes.
type source struct{ *volumes.Manager }

// Volumes implements status.Source.
func (s source) Volumes() []status.Volume { return s.List() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
