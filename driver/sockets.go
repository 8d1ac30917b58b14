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

	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/status"
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
	serving, stop := context.WithCancel(klog.NewContext(context.Background(), t.logger))
	t.status = stop
	return t.place([]service{
		{p.endpoint, &t.serving, t.node.Serve},
		{p.registrationSocket(), &t.announcing, t.announcement.Serve},
		{StatusSocket(p.config.KubeletRoot, p.config.Name), &t.serving, func(listener net.Listener) error {
			return metrics.Serve(serving, listener, status.Handler(p))
		}},
	})
}

// service is what listens on a socket.
type service struct {
	path  string
	group *sync.WaitGroup
	serve func(net.Listener) error
}

// place puts the sockets in place, all of them or none: they may take the place of those
// of a process that goes on if this one fails.
func (t *term) place(services []service) error {
	for _, each := range services {
		bound, err := bind(each.path)
		if err != nil {
			for _, other := range t.sockets {
				err = errors.Join(err, other.discard())
			}
			t.sockets = nil
			return err
		}
		bound.service = each
		t.sockets = append(t.sockets, bound)
	}
	for i, each := range t.sockets {
		if err := each.place(); err != nil {
			for _, other := range t.sockets[i+1:] {
				err = errors.Join(err, other.discard())
			}
			t.sockets = t.sockets[:i]
			return err
		}
		t.start(each)
	}
	t.logger.Info("Serving", logDriver, t.plugin.config.Name, logSocket, t.plugin.endpoint)
	return nil
}

func (t *term) start(s *socket) {
	s.group.Go(func() {
		// A socket is closed by this process alone.
		if err := s.serve(s); err != nil && !errors.Is(err, net.ErrClosed) {
			select {
			case t.failed <- fmt.Errorf("serve on %s: %w", s.path, err):
			default: // one failure ends the term
			}
		}
	})
}

// renew puts another socket in the place of one that is gone.
func (t *term) renew(gone *socket) error {
	next, err := listen(gone.path)
	if err != nil {
		return err
	}
	next.service = gone.service
	t.start(next)
	// Who has connected to the one before stays: perhaps the process that takes over.
	_ = gone.Close() // nobody else finds it
	t.sockets[slices.Index(t.sockets, gone)] = next
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
