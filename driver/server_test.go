package driver

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider"
)

// nothing is a store and a provider without volumes.
type nothing struct{}

func (nothing) Save(string, []byte) error              { return nil }
func (nothing) Delete(string) error                    { return nil }
func (nothing) Load(string) (map[string][]byte, error) { return nil, nil }

func (nothing) Publish(context.Context, provider.Request, provider.Sink) (*provider.Volume, []provider.RenderedFile, error) {
	return nil, nil, nil
}
func (nothing) TakeOver(provider.Request, provider.Sink) *provider.Volume { return nil }
func (nothing) Restore([]byte, provider.Sink) (*provider.Volume, error)   { return nil, nil }

func (nothing) ObserveCall(string, string, time.Duration, bool) {}

// newNode is the configuration of a node whose root directory is gone after the test.
func newNode(t *testing.T) Config {
	t.Helper()
	root, err := os.MkdirTemp("", "node")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	return Config{Name: "csi.vaultmount.dev", NodeName: "node-1", KubeletRoot: root, VolumeSize: 1, MaxVolumeSize: 1}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve answers on a socket until the test ends, and returns a connection to it.
func serve(t *testing.T, logger klog.Logger, node *NodeServer, recorder Recorder) (*Server, *grpc.ClientConn) {
	t.Helper()
	directory, err := os.MkdirTemp("", "csi")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	socket := filepath.Join(directory, "csi.sock")
	server := NewServer(logger, node, recorder)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Server.Stop()
		must(t, <-served)
	})
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { connection.Close() })
	return server, connection
}

// Restoring many volumes takes time. Probes are answered meanwhile, or the kubelet would
// kill the process again and again; a call for a volume waits.
func TestProbesAreAnsweredWhileVolumesAreRestored(t *testing.T) {
	t.Parallel()
	node, request := newNodeServer(t, newNode(t), nothing{})
	node.restored = make(chan struct{})
	_, connection := serve(t, klog.Background(), node, nothing{})
	answered := make(chan error, 1)
	go func() {
		_, err := csi.NewNodeClient(connection).NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1", TargetPath: request.GetTargetPath()})
		answered <- err
	}()
	_, err := csi.NewIdentityClient(connection).Probe(t.Context(), &csi.ProbeRequest{})
	must(t, err)
	_, err = csi.NewNodeClient(connection).NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	must(t, err)
	select {
	case err := <-answered:
		t.Errorf("the call is answered before the volumes are restored: %v", err)
	default:
	}
	close(node.restored)
	must(t, <-answered)
}

// The kubelet learns why, long before it gives up by itself.
func TestCallIsUnavailableWhenRestoringTakesLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := NewNodeServer(Config{})
		start := time.Now()
		_, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{})
		if code(err) != codes.Unavailable || time.Since(start) != restoreTimeout {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

// A call that waits for the volumes, or for Vault, is no reason to keep the next instance
// waiting. The kubelet is told to call again.
func TestStopCancelsCalls(t *testing.T) {
	t.Parallel()
	node := NewNodeServer(newNode(t))
	server, connection := serve(t, klog.Background(), node, nothing{})
	call, err := connection.NewStream(t.Context(), &grpc.StreamDesc{}, csi.Node_NodeUnpublishVolume_FullMethodName)
	must(t, err)
	must(t, call.SendMsg(&csi.NodeUnpublishVolumeRequest{VolumeId: "csi-1"}))
	must(t, call.CloseSend())
	// On one connection, calls begin in the order in which they are made.
	_, err = csi.NewIdentityClient(connection).Probe(t.Context(), &csi.ProbeRequest{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server.Stop(ctx)
	err = call.RecvMsg(&csi.NodeUnpublishVolumeResponse{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), errStopping.Error()) {
		t.Errorf("the call ends with %v", err)
	}
}

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	for name, test := range map[string]struct{ takes, want time.Duration }{
		"calls that finish":               {time.Second, time.Second},
		"calls that end when cancelled":   {timeout + time.Second, timeout + time.Second},
		"a call that hears nothing of it": {time.Hour, timeout + cancelledTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				start, cancelled := time.Now(), time.Duration(0)
				stopWithin(ctx, func() { time.Sleep(test.takes) }, func() { cancelled = time.Since(start) })
				if got := time.Since(start); got != test.want || cancelled < min(test.takes, timeout) {
					t.Errorf("it takes %s, and calls are cancelled after %s", got, cancelled)
				}
				time.Sleep(test.takes) // the goroutine that is left behind ends
			})
		})
	}
}
