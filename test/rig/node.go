package rig

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Node is a kubelet and the program as its driver, in front of a Vault.
type Node struct {
	*Kubelet
	Vault   *Vault
	Address string // of Vault, as the driver sees it
	Process *Process
	Calls   csi.NodeClient
	// CallTimeout is what a call gets that must be answered at once, whatever Vault does:
	// enough on a busy machine, and less than any wait for Vault.
	CallTimeout time.Duration
}

// NewNode returns a node whose driver the caller starts.
func NewNode(t testing.TB, vault *Vault, address string) *Node {
	t.Helper()
	kubelet := NewKubelet(t)
	return &Node{Kubelet: kubelet, Vault: vault, Address: address, Calls: Calls(kubelet.Endpoint()), CallTimeout: 10 * time.Second}
}

// StartNode returns a node whose driver answers.
func StartNode(t testing.TB, vault *Vault, address string, arguments ...string) *Node {
	t.Helper()
	n := NewNode(t, vault, address)
	n.Process = StartProcess(t, n.Kubelet, address, arguments...)
	n.AwaitDriver(t)
	return n
}

// AwaitDriver waits until a driver answers.
func (n *Node) AwaitDriver(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), n.CallTimeout)
	defer cancel()
	_, err := n.Calls.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	must(t, err)
}

// Again starts the driver once more, as the DaemonSet does after its end. The log goes
// on.
func (n *Node) Again(t testing.TB) {
	t.Helper()
	n.Process = n.Process.Again(t)
	n.AwaitDriver(t)
}

// Publish calls as the kubelet does.
func (n *Node) Publish(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	ctx, cancel := context.WithTimeout(ctx, n.CallTimeout)
	defer cancel()
	_, err := n.Calls.NodePublishVolume(ctx, request)
	return err
}

// Unpublish calls as the kubelet does.
func (n *Node) Unpublish(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	ctx, cancel := context.WithTimeout(ctx, n.CallTimeout)
	defer cancel()
	_, err := n.Calls.NodeUnpublishVolume(ctx, Unpublish(request))
	return err
}

// MustPublish is Publish, which must succeed.
func (n *Node) MustPublish(t testing.TB, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	must(t, n.Publish(t.Context(), request))
}

// MustUnpublish is Unpublish, which must succeed and leave nothing at the target path.
func (n *Node) MustUnpublish(t testing.TB, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	must(t, n.Unpublish(t.Context(), request))
	RequireNothing(t, request.GetTargetPath())
}

// RegistrationSocket waits for what the kubelet finds in its directory.
func (k *Kubelet) RegistrationSocket(t testing.TB) string {
	t.Helper()
	var links []string
	Eventually(t, "the driver announces itself", func() bool {
		var err error
		links, err = filepath.Glob(filepath.Join(k.Root, "plugins_registry", DriverName+"-reg-*.sock"))
		return err == nil && len(links) == 1
	})
	return links[0]
}

// Registrar connects to that socket.
func (k *Kubelet) Registrar(t testing.TB) registration.RegistrationClient {
	t.Helper()
	return registration.NewRegistrationClient(Dial(t, k.RegistrationSocket(t)))
}

// Register tells the driver that the kubelet has registered it.
func (k *Kubelet) Register(t testing.TB) {
	t.Helper()
	_, err := k.Registrar(t).NotifyRegistrationStatus(t.Context(), &registration.RegistrationStatus{PluginRegistered: true})
	must(t, err)
}

// Dial connects to a unix socket, also to one that is not there yet.
func Dial(t testing.TB, socket string) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	must(t, err)
	t.Cleanup(func() { connection.Close() })
	return connection
}
