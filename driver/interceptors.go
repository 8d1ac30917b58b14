package driver

import (
	"context"
	"errors"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
)

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
