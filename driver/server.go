package driver

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
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

// identityServer implements csi.IdentityServer.
type identityServer struct {
	csi.UnimplementedIdentityServer

	config Config
}

// GetPluginInfo implements csi.IdentityServer.
func (s identityServer) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: s.config.Name, VendorVersion: s.config.Version}, nil
}

// GetPluginCapabilities implements csi.IdentityServer. There is no controller.
func (identityServer) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe implements csi.IdentityServer. It asks neither Vault, since a restart of the
// driver repairs no Vault, nor for the volumes, which may not be restored yet.
func (identityServer) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

// The keys of log lines. Values are names and outcomes, never a request: a
// request holds tokens and templates.
const (
	logMethod    = "method"
	logCode      = "code"
	logDuration  = "duration"
	logVolumeID  = "volumeID"
	logPod       = "pod"
	logRepublish = "republish"
	logReason    = "reason"
	logStack     = "stack"
)

const methodPublish = "NodePublishVolume"

// Verbosity of what is not an error.
const (
	levelChange = 2 // a volume came or went
	levelCall   = 5 // any call, some of them several times a minute
)

// Recorder hears of each call of the kubelet when it is answered. It may be called
// concurrently, and answers at once.
type Recorder interface {
	// ObserveCall tells the method, the gRPC code and the time; first is true for a call
	// that is to make a volume which is not there yet.
	ObserveCall(method, code string, duration time.Duration, first bool)
}

// logCalls writes one line for the outcome of each call and turns errors, and panics,
// into statuses.
func logCalls(logger klog.Logger, recorder Recorder) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		call := logger.WithValues(describe(info.FullMethod, request)...)
		notes := &callNotes{}
		start := time.Now()
		var response any
		err := recovery.Do(func() (err error) {
			response, err = handle(context.WithValue(klog.NewContext(ctx, call), callNotesKey{}, notes), request)
			return err
		})
		var panicked *recovery.PanicError
		if errors.As(err, &panicked) {
			call = call.WithValues(logStack, panicked.Stack)
		}
		err = toStatus(err)
		duration := time.Since(start)
		code := status.Code(err).String()
		recorder.ObserveCall(path.Base(info.FullMethod), code, duration, path.Base(info.FullMethod) == methodPublish && !notes.republish)
		call = call.WithValues(logCode, code, logDuration, duration.Round(time.Microsecond).String())
		if err != nil {
			call.Error(nil, "Call failed", logReason, status.Convert(err).Message())
			return nil, err
		}
		if notes.republish {
			call = call.WithValues(logRepublish, true)
		}
		call.V(level(info.FullMethod, notes)).Info("Call served")
		return response, nil
	}
}

// callNotes is what a handler tells about its call, beyond the answer.
type callNotes struct {
	republish bool // the volume was there already
}

type callNotesKey struct{}

func noteRepublish(ctx context.Context) {
	if notes, ok := ctx.Value(callNotesKey{}).(*callNotes); ok {
		notes.republish = true
	}
}

func level(method string, notes *callNotes) int {
	switch path.Base(method) {
	case methodPublish, "NodeUnpublishVolume":
		if !notes.republish {
			return levelChange
		}
	}
	return levelCall
}

func describe(method string, request any) []any {
	values := []any{logMethod, path.Base(method)}
	if r, ok := request.(interface{ GetVolumeId() string }); ok && r.GetVolumeId() != "" {
		values = append(values, logVolumeID, limits.Truncate(r.GetVolumeId(), limits.NameBytes.Max()))
	}
	if r, ok := request.(interface{ GetVolumeContext() map[string]string }); ok {
		context := r.GetVolumeContext()
		values = append(values, logPod, klog.KRef(limits.Truncate(context[keyPodNamespace], limits.NameBytes.Max()), limits.Truncate(context[keyPodName], limits.NameBytes.Max())))
	}
	return values
}
