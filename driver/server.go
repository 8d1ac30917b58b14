package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
)

// callWorkers are goroutines that keep their stacks from one call to the next: to
// grow one takes a quarter of a call for a volume that is mounted. More calls at
// once have goroutines of their own.
const callWorkers = 4

// Server answers the calls of CSI.
type Server struct {
	*grpc.Server

	stopping context.Context // its end cancels the calls in progress
	cancel   context.CancelFunc
}

// NewServer returns a server of both services.
func NewServer(logger klog.Logger, node *NodeServer, recorder Recorder) *Server {
	s := &Server{}
	s.stopping, s.cancel = context.WithCancel(context.Background())
	s.Server = grpc.NewServer(grpc.ChainUnaryInterceptor(logCalls(logger, recorder), s.cancelOnStop), grpc.WaitForHandlers(true), grpc.NumStreamWorkers(callWorkers))
	csi.RegisterIdentityServer(s.Server, identityServer{config: node.config})
	csi.RegisterNodeServer(s.Server, node)
	return s
}

// cancelledTimeout is how long a call takes to return once it is cancelled.
const cancelledTimeout = 2 * time.Second

// Stop returns when the calls in progress are finished. It cancels them when ctx ends, and
// does not wait for those that go on all the same: the process is about to end.
func (s *Server) Stop(ctx context.Context) {
	stopWithin(ctx, s.GracefulStop, s.cancel)
}

func stopWithin(ctx context.Context, stop, cancel func()) {
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		return
	case <-ctx.Done():
		cancel()
	}
	select {
	case <-stopped:
	case <-time.After(cancelledTimeout):
	}
}

// cancelOnStop is the interceptor that ends calls which take longer than Stop allows.
func (s *Server) cancelOnStop(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stopping, func() { cancel(errStopping) })()
	response, err := handle(ctx, request)
	if err != nil && errors.Is(context.Cause(ctx), errStopping) {
		return nil, fmt.Errorf("%w: %w", errStopping, err)
	}
	return response, err
}
