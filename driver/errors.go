package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

var (
	errInProgress  = errors.New("a call for this volume is in progress; the kubelet will call again")
	errNoToken     = errors.New("the kubelet sends no service-account token that Vault could be shown")
	errNoPodInfo   = errors.New("the kubelet does not say which pod the volume is for: the CSIDriver object must have podInfoOnMount: true")
	errNoVolume    = errors.New("no volume is mounted there")
	errNotRestored = errors.New("the driver is starting and has not restored the volumes of this node yet; the kubelet will call again")
	errStopping    = errors.New("the driver stops before the call is finished; the kubelet will call again, and the next instance answers")
)

// fieldError is a field of a CSI request that the driver cannot work with.
type fieldError struct {
	field, problem string
	cause          error // may be nil; its text is part of problem
}

func (e *fieldError) Error() string { return e.field + ": " + e.problem }
func (e *fieldError) Unwrap() error { return e.cause }

func invalidField(field, problem string) error { return &fieldError{field: field, problem: problem} }

func missingField(field string) error { return invalidField(field, "is missing from the request") }

// code is the only place that chooses gRPC codes. The kubelet reads them in two
// ways: after a final code on a first publish it forgets the volume and will not
// call NodeUnpublishVolume; after any other it will.
func code(err error) codes.Code {
	var attribute *volume.AttributeError
	var field *fieldError
	var target *volumes.TargetError
	switch {
	// Not final.
	case errors.Is(err, errInProgress):
		return codes.Aborted
	case errors.Is(err, tmpfs.ErrFull), errors.Is(err, provider.ErrFull), errors.Is(err, volumes.ErrCapacity), errors.Is(err, provider.ErrTooLarge):
		return codes.ResourceExhausted
	case errors.Is(err, errStopping), errors.Is(err, errNotRestored), errors.Is(err, provider.ErrUnavailable), errors.Is(err, provider.ErrRendererUnavailable):
		return codes.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	// Final.
	case errors.As(err, &attribute), errors.As(err, &field), errors.As(err, &target), errors.Is(err, provider.ErrTemplate), errors.Is(err, provider.ErrInvalid):
		return codes.InvalidArgument
	case errors.Is(err, provider.ErrRefused):
		return codes.PermissionDenied
	case errors.Is(err, provider.ErrNotFound), errors.Is(err, errNoVolume):
		return codes.NotFound
	case errors.Is(err, provider.ErrData), errors.Is(err, errNoToken), errors.Is(err, errNoPodInfo), errors.Is(err, tmpfs.ErrOccupied):
		return codes.FailedPrecondition
	}
	return codes.Internal
}

// toStatus makes the answer of a call. The kubelet logs it and makes an Event of it. What is a status already comes from the
// generated code, for calls that the driver does not serve.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(code(err), limits.Shorten(err.Error(), limits.ErrorBytes.Max()))
}

// quote shows enough of what a request holds to recognise it. It may be of any length,
// and is no part of an error beyond that.
func quote(text string) string { return fmt.Sprintf("%q", limits.Truncate(text, quotedBytes)) }

// quoteList shows the first of some names.
func quoteList(texts []string) string {
	var quoted []string
	for i, text := range texts {
		if i == quotedTexts {
			quoted = append(quoted, fmt.Sprintf("... (%d in all)", len(texts)))
			break
		}
		quoted = append(quoted, quote(text))
	}
	return "[" + strings.Join(quoted, " ") + "]"
}

const (
	quotedBytes = 96
	quotedTexts = 5
)
