package component

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver"
	volumestatus "github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/test/rig"
)

// upgrade is a node on which processes of the driver follow each other.
type upgrade struct {
	kubelet *rig.Kubelet
	vault   *rig.Vault
	// arguments are further ones of each process.
	arguments []string
}

func newUpgrade(t *testing.T) *upgrade {
	t.Helper()
	return &upgrade{kubelet: rig.NewKubelet(t), vault: rig.StartVault(t)}
}

// begin starts a process, and waits until it has charge of the volumes and serves,
// whichever comes first: beside one that runs, it serves before.
func (u *upgrade) begin(t *testing.T) *rig.Process {
	t.Helper()
	process := rig.StartProcess(t, u.kubelet, u.vault.Server.Address, u.arguments...)
	awaitLog(t, process, `"Resumed"`, 1)
	awaitLog(t, process, `"Serving" driver=`, 1)
	return process
}

func awaitLog(t *testing.T, process *rig.Process, text string, times int) {
	t.Helper()
	eventually(t, "the log holds "+text, func() bool { return strings.Count(process.Log.String(), text) >= times })
}

// call is the kubelet's: a connection of its own, and no patience with a socket
// that nobody listens on.
func (u *upgrade) call(do func(csi.NodeClient) error) error {
	connection, err := grpc.NewClient("unix://"+u.kubelet.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	return do(csi.NewNodeClient(connection))
}

func (u *upgrade) publish(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	if err := u.call(func(node csi.NodeClient) error {
		_, err := node.NodePublishVolume(t.Context(), request)
		return err
	}); err != nil {
		t.Errorf("publish %s: %v", request.GetVolumeId(), err)
	}
	if got := mustRead(t, volumeFile(request, "db")); got != connection {
		t.Errorf("the file of %s holds %q", request.GetVolumeId(), got)
	}
}

func (u *upgrade) unpublish(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	if err := u.call(func(node csi.NodeClient) error {
		_, err := node.NodeUnpublishVolume(t.Context(), unpublishRequest(request))
		return err
	}); err != nil {
		t.Errorf("unpublish %s: %v", request.GetVolumeId(), err)
	}
}

func (u *upgrade) request(t *testing.T, pod string) *csi.NodePublishVolumeRequest {
	t.Helper()
	return u.kubelet.Request(t, u.vault, pod, map[string]string{"template/db": connectionTemplate})
}

// volumes is what the process that has the status socket knows.
func (u *upgrade) volumes(t *testing.T) []volumestatus.Volume {
	t.Helper()
	volumes, err := volumestatus.Client{Socket: driver.StatusSocket(u.kubelet.Root, driverName)}.Volumes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return volumes
}

// Processes follow each other under load, as in a rolling update with maxSurge, and
// no call of the kubelet fails: neither for new volumes nor for those that are
// there. The volumes change hands with their tokens, and the kubelet keeps its
// registration.
func TestUpgradeUnderLoad(t *testing.T) {
	u := newUpgrade(t)
	old := u.begin(t)
	register(t, u.kubelet.Root)
	link := registrationLink(t, u.kubelet.Root)
	established := u.request(t, "established")
	u.publish(t, established)
	since := u.volumes(t)[0].Session.Since

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var made int
	for worker := range 3 {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				request := u.request(t, fmt.Sprintf("new-%d-%d", worker, i))
				u.publish(t, request)
				u.publish(t, request)
				if worker == 0 { // the kubelet never calls twice at a time for one volume
					u.publish(t, established)
					made++
				}
				u.unpublish(t, request)
			}
		})
	}
	for range 3 {
		next := u.begin(t)
		awaitLog(t, old, "Another process of the driver has taken over", 1)
		old.Stop(t)
		old = next
	}
	stop()
	load.Wait()
	if made < 3 {
		t.Errorf("the load made %d volumes one after the other, which is none", made)
	}
	if got := registrationLink(t, u.kubelet.Root); got != link {
		t.Errorf("the registration was %s and is %s", link, got)
	}
	// Times pass from one process to the next by the node's boot, within microseconds.
	if volumes := u.volumes(t); len(volumes) != 1 || volumes[0].Session.Since.Sub(since).Abs() > time.Second || volumes[0].Session.Logins != 1 {
		t.Errorf("the volume has not kept its token of %s: %+v", since, volumes)
	}
	u.unpublish(t, established)
	eventually(t, "all tokens are revoked", func() bool { return u.vault.PodTokens(t) == 0 })
}

// A new version that ends leaves the node to the one before.
func TestFailedUpgrade(t *testing.T) {
	u := newUpgrade(t)
	old := u.begin(t)
	request := u.request(t, "pod")
	u.publish(t, request)
	for attempt := range 3 {
		next := u.begin(t)
		awaitLog(t, old, "Another process of the driver has taken over", attempt+1)
		u.publish(t, request)
		next.Kill(t)
		awaitLog(t, old, `"Resumed"`, attempt+2)
		eventually(t, "the old process serves", func() bool {
			return u.call(func(node csi.NodeClient) error {
				_, err := node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
				return err
			}) == nil
		})
		u.publish(t, u.request(t, fmt.Sprintf("new-%d", attempt)))
	}
	if volumes := u.volumes(t); len(volumes) != 4 {
		t.Errorf("%d volumes are known, want 4", len(volumes))
	}
	u.unpublish(t, request)
	old.Stop(t)
}

// A process that stood by has ended, its successor was succeeded: each waits for its
// own end in peace.
func TestUpgradeOfAnUpgrade(t *testing.T) {
	u := newUpgrade(t)
	first := u.begin(t)
	second := u.begin(t)
	third := u.begin(t)
	second.Stop(t)
	request := u.request(t, "pod")
	u.publish(t, request)
	first.Stop(t)
	u.publish(t, request)
	u.unpublish(t, request)
	third.Stop(t)
}

// A process that hangs keeps the volumes, and the one that starts says so and what
// to do. It must not touch what it has no charge of.
func TestUpgradeOfAProcessThatHangs(t *testing.T) {
	u := newUpgrade(t)
	old := u.begin(t)
	request := u.request(t, "pod")
	u.publish(t, request)
	if err := old.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it finds the old process's socket at first, and its own dead one then
		next := rig.StartProcess(t, u.kubelet, u.vault.Server.Address)
		if err := next.Wait(); err == nil {
			t.Error("a second process runs beside one that hangs")
		}
		if log := next.Log.String(); !strings.Contains(log, "another process of the driver looks after the volumes of this node and does not hand them over; delete its pod") {
			t.Errorf("it says:\n%s", log)
		}
	}
	if got := mustRead(t, volumeFile(request, "db")); got != connection {
		t.Errorf("the file holds %q", got)
	}
	old.Kill(t)
	last := u.begin(t)
	u.publish(t, request)
	u.unpublish(t, request)
	last.Stop(t)
}

// A Vault takes requests and answers none: a publish that has begun is cut short when
// another process takes over, so that it holds up nobody else, and leaves nothing.
func TestUpgradeWhileAVaultHangs(t *testing.T) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	address := "http://" + hanging.Addr().String()
	u := newUpgrade(t)
	u.arguments = []string{"--allow-address=" + address}
	old := u.begin(t)
	established := u.request(t, "established")
	u.publish(t, established)
	waiting := u.kubelet.Request(t, u.vault, "waiting", map[string]string{"template/db": connectionTemplate, "address": address})
	outcome := make(chan error, 1)
	go func() {
		outcome <- u.call(func(node csi.NodeClient) error {
			_, err := node.NodePublishVolume(t.Context(), waiting)
			return err
		})
	}()
	asked, err := hanging.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer asked.Close()
	next := u.begin(t)
	err = <-outcome
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "another process of the driver takes over, and will answer the kubelet's next call") {
		t.Errorf("the publish in progress ends with %v", err)
	}
	rig.RequireNothing(t, waiting.GetTargetPath())
	u.publish(t, established)
	old.Stop(t)
	u.unpublish(t, established)
	next.Stop(t)
}

// After a reboot, or a crash, the kubelet finds the driver under a name that it has
// not tried in vain before, and under no other.
func TestRegistrationAfterACrash(t *testing.T) {
	u := newUpgrade(t)
	before := u.begin(t)
	link := registrationLink(t, u.kubelet.Root)
	before.Kill(t)
	// One of a version that put its socket there itself.
	if err := os.WriteFile(filepath.Join(u.kubelet.Root, "plugins_registry", driverName+"-reg.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	after := u.begin(t)
	eventually(t, "there is one registration", func() bool {
		links, err := filepath.Glob(filepath.Join(u.kubelet.Root, "plugins_registry", "*"))
		return err == nil && len(links) == 1 && links[0] != link
	})
	after.Stop(t)
}
