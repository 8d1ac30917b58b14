package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Run serves CSI on the unix socket endpoint and announces it to the kubelet,
// until ctx ends; it returns when calls in progress are done.
func (d *Driver) Run(ctx context.Context, endpoint string) error {
	logger := klog.FromContext(ctx)
	// Only root may reach the socket: whoever does can mount.
	if err := os.MkdirAll(filepath.Dir(endpoint), 0o700); err != nil {
		return fmt.Errorf("create the directory of the CSI socket: %w", err)
	}
	node := grpc.NewServer(grpc.UnaryInterceptor(logCalls(logger)), grpc.WaitForHandlers(true))
	csi.RegisterIdentityServer(node, d)
	csi.RegisterNodeServer(node, d)
	announcement := grpc.NewServer()
	registration.RegisterRegistrationServer(announcement, &registrar{config: d.config, endpoint: endpoint, logger: logger})

	// The kubelet calls CSI as soon as it finds the second socket.
	nodeListener, err := listen(endpoint)
	if err != nil {
		return err
	}
	announcementListener, err := listen(d.config.registrationSocket())
	if err != nil {
		nodeListener.Close()
		return err
	}
	logger.Info("Serving", logDriver, d.config.Name, logSocket, endpoint, "noswap", d.mounts.mounter.NoSwap())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serve(ctx, node, nodeListener) })
	group.Go(func() error { return serve(ctx, announcement, announcementListener) })
	group.Go(func() error { return d.sweepUntil(ctx) })
	return group.Wait()
}

// StateDirectory is the conventional place of what the driver must know of its
// volumes when it starts again.
func StateDirectory(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "state")
}

// DefaultEndpoint is the conventional place of the CSI socket.
func DefaultEndpoint(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "csi.sock")
}
