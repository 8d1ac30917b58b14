package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/vaultmount/vaultmount/driver/monitor"
)

// callWorkers are goroutines that keep their stacks from one call to the next: to
// grow one takes a quarter of a call for a volume that is mounted. More calls at
// once have goroutines of their own.
const callWorkers = 4

// serve puts the sockets in place. The kubelet calls CSI as soon as it finds the
// registration, so that comes second.
func (t *term) serve() error {
	p := t.plugin
	t.node = grpc.NewServer(grpc.ChainUnaryInterceptor(logCalls(t.logger, p.observer), t.bound), grpc.WaitForHandlers(true), grpc.NumStreamWorkers(callWorkers))
	csi.RegisterIdentityServer(t.node, p)
	csi.RegisterNodeServer(t.node, p)
	t.announcement = grpc.NewServer()
	registration.RegisterRegistrationServer(t.announcement, &registrar{plugin: p, logger: t.logger})
	t.handover.register(t.announcement)
	if err := t.serveOn(&t.serving, p.endpoint, t.node.Serve); err != nil {
		return err
	}
	if err := t.serveOn(&t.announcing, p.registrationSocket(), t.announcement.Serve); err != nil {
		return err
	}
	status, stop := context.WithCancel(klog.NewContext(context.Background(), t.logger))
	t.status = stop
	if err := t.serveOn(&t.serving, StatusSocket(p.config.KubeletRoot, p.config.Name), func(listener net.Listener) error {
		return monitor.Serve(status, listener, monitor.VolumeRoutes(p.Volumes))
	}); err != nil {
		return err
	}
	t.logger.Info("Serving", logDriver, p.config.Name, logSocket, p.endpoint)
	return nil
}

func (t *term) serveOn(group *sync.WaitGroup, path string, serve func(net.Listener) error) error {
	socket, err := listen(path)
	if err != nil {
		return err
	}
	t.sockets = append(t.sockets, socket)
	group.Go(func() {
		// A socket is closed by this process alone.
		if err := serve(socket); err != nil && !errors.Is(err, net.ErrClosed) {
			t.failed <- fmt.Errorf("serve on %s: %w", path, err)
		}
	})
	return nil
}

// renewAnnouncement puts a registration socket in the place of one that is gone.
func (t *term) renewAnnouncement() error {
	path := t.plugin.registrationSocket()
	gone := slices.IndexFunc(t.sockets, func(each *socket) bool { return each.path == path })
	if err := t.serveOn(&t.announcing, path, t.announcement.Serve); err != nil {
		return err
	}
	// Who has connected to the one before stays: perhaps the process that takes over.
	_ = t.sockets[gone].Close() // nobody else finds it
	t.sockets = slices.Delete(t.sockets, gone, gone+1)
	return nil
}

// bound ends calls that are still in progress some time after another process has
// taken over.
func (t *term) bound(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.replaced, func() { cancel(errReplaced) })()
	response, err := handle(ctx, request)
	if err != nil && errors.Is(context.Cause(ctx), errReplaced) {
		return nil, fmt.Errorf("%w: %w", errReplaced, err)
	}
	return response, err
}
