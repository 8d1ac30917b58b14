package component

import (
	"context"
	"net"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A node that comes back from a reboot publishes the volumes of all its pods at
// once; the kubelet sets no limit.
func TestBurstOfANode(t *testing.T) {
	const pods = 110
	fixture := startVault(t)
	n := startNode(t, fixture.server.Address, fixture)
	requests := make([]*csi.NodePublishVolumeRequest, pods)
	for i := range requests {
		requests[i] = n.request(t, podName(i), map[string]string{
			"template/database-config.txt": connectionTemplate, "secret/app": "old/app", "template/pod": podName(i),
		})
	}
	// A driver that has done all its kinds of work once has started all it needs.
	first := requests[0]
	if _, err := n.calls.NodePublishVolume(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(first)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its token is revoked", func() bool { return fixture.podTokens(t) == 0 })
	before := ownGoroutines(t)
	eachAtOnce(t, requests, func(request *csi.NodePublishVolumeRequest) error {
		_, err := n.calls.NodePublishVolume(t.Context(), request)
		return err
	})
	for i, request := range requests {
		got := mustRead(t, volumeFile(request, "database-config.txt")) + mustRead(t, volumeFile(request, "app")) + mustRead(t, volumeFile(request, "pod"))
		if got != connection+"html: <&>\nname: value\n"+podName(i) {
			t.Errorf("%s holds %q", podName(i), got)
		}
	}
	if got := fixture.podTokens(t); got != pods {
		t.Errorf("Vault holds %d tokens of pods, want %d", got, pods)
	}
	eachAtOnce(t, requests, func(request *csi.NodePublishVolumeRequest) error {
		_, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request))
		return err
	})
	for _, request := range requests {
		requireNothing(t, request.GetTargetPath())
	}
	eventually(t, "all tokens are revoked", func() bool { return fixture.podTokens(t) == 0 })
	eventually(t, "no goroutine is left", func() bool { return ownGoroutines(t) <= before })
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
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
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
	n := startNode(t, "http://"+silent, noVault(t))
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
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request)); status.Code(err) != codes.Aborted {
		t.Errorf("an unpublish: %v", err)
	}
	cancel()
	if err := <-first; status.Code(err) != codes.Canceled {
		t.Errorf("the first publish: %v", err)
	}
	eventually(t, "the volume is free again", func() bool {
		_, err := n.calls.NodeUnpublishVolume(t.Context(), unpublishRequest(request))
		return err == nil
	})
	requireNothing(t, request.GetTargetPath())
}

// listenSilently takes connections and never answers: a Vault behind a broken
// network.
func listenSilently(t *testing.T) (address string, accepted <-chan struct{}) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
