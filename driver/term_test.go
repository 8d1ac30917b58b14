package driver

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A new process that cannot take charge of the volumes ends at once, whatever calls
// of the kubelet wait at it for that, and the one before serves again.
func TestFailedUpgradeWithACallWaiting(t *testing.T) {
	t.Parallel()
	config := newNode(t)
	before := newProcess(t, config)
	run(t, before)

	waits := make(chan struct{})
	broken := errors.New("the state cannot be read")
	next := newProcessThat(t, config, func(context.Context, func() error) (*Charge, error) {
		<-waits
		return nil, broken
	})
	ended := make(chan error, 1)
	go func() { ended <- next.Run(logged(t, t.Context())) }()
	eventually(t, "the process before has handed over", func() bool { return before.current() == nil })
	call := beginUnpublish(t, config)
	close(waits)
	select {
	case err := <-ended:
		if !errors.Is(err, broken) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the call that waits for it")
	}
	err := call.RecvMsg(&csi.NodeUnpublishVolumeResponse{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), errReplaced.Error()) {
		t.Errorf("the call ends with %v", err)
	}
	eventually(t, "the process before has the node back", func() bool {
		return before.current() != nil && getsInfo(t, before.endpoint)
	})
}

// beginUnpublish returns when the driver has the call.
func beginUnpublish(t *testing.T, config Config) grpc.ClientStream {
	t.Helper()
	connection := dial(t, DefaultEndpoint(config.KubeletRoot, config.Name))
	call, err := connection.NewStream(t.Context(), &grpc.StreamDesc{}, csi.Node_NodeUnpublishVolume_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(config.KubeletRoot, "pods", "uid", "volumes", "kubernetes.io~csi", "secrets", "mount")
	if err := errors.Join(call.SendMsg(&csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: target}), call.CloseSend()); err != nil {
		t.Fatal(err)
	}
	// On one connection, calls begin in the order in which they are made.
	if _, err := csi.NewIdentityClient(connection).Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
		t.Fatal(err)
	}
	return call
}
