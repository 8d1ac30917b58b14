package driver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
)

func TestCode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err  error
		want codes.Code
	}{
		{&volume.AttributeError{Key: "rol"}, codes.InvalidArgument},
		{missingField("volume_id"), codes.InvalidArgument},
		{provider.ErrTemplate, codes.InvalidArgument},
		{provider.ErrInvalid, codes.InvalidArgument},
		{provider.ErrRefused, codes.PermissionDenied},
		{provider.ErrNotFound, codes.NotFound},
		{errNoVolume, codes.NotFound},
		{provider.ErrData, codes.FailedPrecondition},
		{errNoToken, codes.FailedPrecondition},
		{errNoPodInfo, codes.FailedPrecondition},
		{provider.ErrUnavailable, codes.Unavailable},
		{provider.ErrRendererUnavailable, codes.Unavailable},
		{fmt.Errorf("%w: %w", provider.ErrUnavailable, context.DeadlineExceeded), codes.Unavailable},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{tmpfs.ErrFull, codes.ResourceExhausted},
		{provider.ErrFull, codes.ResourceExhausted},
		{provider.ErrTooLarge, codes.ResourceExhausted},
		{errInProgress, codes.Aborted},
		{errors.New("anything else"), codes.Internal},
	}
	for _, test := range tests {
		t.Run(test.err.Error(), func(t *testing.T) {
			t.Parallel()
			if got := status.Code(toStatus(fmt.Errorf("volume: %w", test.err))); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	if toStatus(nil) != nil {
		t.Error("success became an error")
	}
	if unimplemented := status.Error(codes.Unimplemented, ""); !errors.Is(toStatus(unimplemented), unimplemented) {
		t.Error("a status changed")
	}
}
