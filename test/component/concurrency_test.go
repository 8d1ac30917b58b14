package component

import (
	"context"
	"net"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

// A node that comes back from a reboot publishes the volumes of all its pods at
// once; the kubelet sets no limit.
func TestBurstOfANode(t *testing.T) {
	const pods = 110
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	requests := make([]*csi.NodePublishVolumeRequest, pods)
	for i := range requests {
		requests[i] = n.request(t, podName(i), map[string]string{
			"template/database-config.txt": connectionTemplate, "secret/app": "old/app", "template/pod": podName(i),
		})
	}
	// A driver that has done all its kinds of work once has started all it needs.
	first := requests[0]
	n.mustPublish(t, first)
	n.mustUnpublish(t, first)
	rig.Eventually(t, "its token is revoked", func() bool { return fixture.PodTokens(t) == 0 })
	before := ownGoroutines(t)
	eachAtOnce(t, requests, func(request *csi.NodePublishVolumeRequest) error {
		_, err := n.calls.NodePublishVolume(t.Context(), request)
		return err
	})
	for i, request := range requests {
		got := mustRead(t, rig.VolumeFile(request, "database-config.txt")) + mustRead(t, rig.VolumeFile(request, "app")) + mustRead(t, rig.VolumeFile(request, "pod"))
		if got != connection+"html: <&>\nname: value\n"+podName(i) {
			t.Errorf("%s holds %q", podName(i), got)
		}
	}
	if got := fixture.PodTokens(t); got != pods {
		t.Errorf("Vault holds %d tokens of pods, want %d", got, pods)
	}
	eachAtOnce(t, requests, func(request *csi.NodePublishVolumeRequest) error {
		_, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
		return err
	})
	for _, request := range requests {
		rig.RequireNothing(t, request.GetTargetPath())
	}
	rig.Eventually(t, "all tokens are revoked", func() bool { return fixture.PodTokens(t) == 0 })
	rig.Eventually(t, "no goroutine is left", func() bool { return ownGoroutines(t) <= before })
}

func eachAtOnce(t *testing.T, requests []*csi.NodePublishVolumeRequest, do func(*csi.NodePublishVolumeRequest) error) {
	t.Helper()
	var group sync.WaitGroup
	for _, request := range requests {
		group.Go(func() {
			if err := do(request); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// ownGoroutines counts the goroutines that run the driver's code. The connections
// that the transport keeps open for the next pods are not among them.
func ownGoroutines(t *testing.T) int {
	t.Helper()
	var stacks strings.Builder
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&stacks, 2))
	count := 0
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "vaultmount/driver") || strings.Contains(stack, "vaultmount/provider") {
			count++
		}
	}
	return count
}

// While one call works on a volume, any other for it is rejected, and told so
// in a way that makes the kubelet come back; and a call whose caller has gone
// mounts nothing.
func TestOneCallAtATimePerVolume(t *testing.T) {
	silent, accepted := listenSilently(t)
	n := startNode(t, "http://"+silent, rig.NewIssuer(t))
	request := n.request(t, "slow", map[string]string{"template/a": "x"})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := n.calls.NodePublishVolume(ctx, request)
		first <- err
	}()
	<-accepted
	if _, err := n.calls.NodePublishVolume(t.Context(), request); status.Code(err) != codes.Aborted {
		t.Errorf("a second publish: %v", err)
	}
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request)); status.Code(err) != codes.Aborted {
		t.Errorf("an unpublish: %v", err)
	}
	cancel()
	if err := <-first; status.Code(err) != codes.Canceled {
		t.Errorf("the first publish: %v", err)
	}
	rig.Eventually(t, "the volume is free again", func() bool {
		_, err := n.calls.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
		return err == nil
	})
	rig.RequireNothing(t, request.GetTargetPath())
}

// listenSilently takes connections and never answers: a Vault behind a broken
// network.
func listenSilently(t *testing.T) (address string, accepted <-chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	signal := make(chan struct{}, 1)
	var connections []net.Conn
	var group sync.WaitGroup
	group.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connections = append(connections, connection)
			select {
			case signal <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() {
		listener.Close()
		group.Wait()
		for _, connection := range connections {
			connection.Close()
		}
	})
	return listener.Addr().String(), signal
}
