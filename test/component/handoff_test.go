package component

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
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

// begin starts a process that becomes active, and waits until it has restored the volumes.
func (u *upgrade) begin(t *testing.T) *rig.Process {
	t.Helper()
	process := rig.StartProcess(t, u.kubelet, u.vault.Server.Address, u.arguments...)
	awaitLog(t, process, `"Volumes restored"`, 1)
	return process
}

// standBy starts a process beside an active one, and waits until Kubernetes would stop that.
func (u *upgrade) standBy(t *testing.T) *rig.Process {
	t.Helper()
	process := rig.StartProcess(t, u.kubelet, u.vault.Server.Address, u.arguments...)
	awaitLog(t, process, "Another instance is active; entering standby", 1)
	address := process.Address(t, "Serving health and metrics")
	for _, path := range []string{"/readyz", "/healthz"} {
		response, err := http.Get("http://" + address + path)
		require.NoError(t, err)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s of a standby: %s", path, response.Status)
		}
	}
	return process
}

func awaitLog(t *testing.T, process *rig.Process, text string, times int) {
	t.Helper()
	rig.Eventually(t, "the log holds "+text, func() bool { return strings.Count(process.Log.String(), text) >= times })
}

// call is the kubelet's: a connection of its own, which fails at once where nobody listens.
func (u *upgrade) call(do func(csi.NodeClient) error) error {
	connection, err := grpc.NewClient("unix://"+u.kubelet.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	return do(csi.NewNodeClient(connection))
}

// retry repeats a call that no instance answers, as the kubelet does. It returns how long
// that took.
func (u *upgrade) retry(t *testing.T, do func(csi.NodeClient) error) (gap time.Duration, err error) {
	t.Helper()
	begin := time.Now()
	for deadline := begin.Add(20 * time.Second); ; gap = time.Since(begin) {
		if err = u.call(do); status.Code(err) != codes.Unavailable || time.Now().After(deadline) {
			return gap, err
		}
	}
}

// publish returns for how long the kubelet was not answered.
func (u *upgrade) publish(t *testing.T, request *csi.NodePublishVolumeRequest) time.Duration {
	t.Helper()
	gap, err := u.retry(t, func(node csi.NodeClient) error {
		_, err := node.NodePublishVolume(t.Context(), request)
		return err
	})
	if err != nil {
		t.Errorf("publish %s: %v", request.GetVolumeId(), err)
	}
	if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
		t.Errorf("the file of %s holds %q", request.GetVolumeId(), got)
	}
	return gap
}

func (u *upgrade) unpublish(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	if _, err := u.retry(t, func(node csi.NodeClient) error {
		_, err := node.NodeUnpublishVolume(t.Context(), rig.Unpublish(request))
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
	volumes, err := volumestatus.Client{Socket: kubeletplugin.StatusSocket(u.kubelet.Root, driverName)}.Volumes(t.Context())
	require.NoError(t, err)
	return volumes
}

// Processes follow each other under load, as in a rolling update with maxSurge. The kubelet
// repeats calls for less than a second, and none fails. The volumes change hands with their
// tokens, and the kubelet keeps its registration.
func TestUpgradeUnderLoad(t *testing.T) {
	u := newUpgrade(t)
	active := u.begin(t)
	u.kubelet.Register(t)
	link := u.kubelet.RegistrationSocket(t)
	established := u.request(t, "established")
	u.publish(t, established)
	since := u.volumes(t)[0].Session.Since

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var made int
	var gaps []time.Duration
	load.Go(func() { gaps = u.watchGaps(t, ctx) })
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
		next := u.standBy(t)
		active.Stop(t)
		awaitLog(t, next, `"Volumes restored"`, 1)
		active = next
	}
	stop()
	load.Wait()
	slices.Sort(gaps)
	t.Logf("the kubelet was not answered for %s", gaps)
	if len(gaps) == 0 || gaps[len(gaps)/2] > time.Second {
		t.Errorf("the gaps of hand-offs are %s", gaps)
	}
	if made < 3 {
		t.Errorf("the load made %d volumes one after the other, which is none", made)
	}
	if got := u.kubelet.RegistrationSocket(t); got != link {
		t.Errorf("the registration was %s and is %s", link, got)
	}
	// Times pass from one process to the next by the node's boot, within microseconds.
	if volumes := u.volumes(t); len(volumes) != 1 || volumes[0].Session.Since.Sub(since).Abs() > time.Second || volumes[0].Session.Logins != 1 {
		t.Errorf("the volume has not kept its token of %s: %+v", since, volumes)
	}
	u.unpublish(t, established)
	rig.Eventually(t, "all tokens are revoked", func() bool { return u.vault.PodTokens(t) == 0 })
}

// watchGaps calls all the time, and returns the times during which no call succeeded.
func (u *upgrade) watchGaps(t *testing.T, ctx context.Context) (gaps []time.Duration) {
	t.Helper()
	for ctx.Err() == nil {
		gap, err := u.retry(t, func(node csi.NodeClient) error {
			_, err := node.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
			return err
		})
		if err != nil {
			t.Error(err)
			return gaps
		}
		if gap > 0 {
			gaps = append(gaps, gap)
		}
	}
	return gaps
}

// A new version that cannot start, or that ends as a standby, leaves the node to the one
// before. It is never ready, or not any more, so the roll-out stops.
func TestFailedUpgrade(t *testing.T) {
	u := newUpgrade(t)
	active := u.begin(t)
	u.kubelet.Register(t)
	link := u.kubelet.RegistrationSocket(t)
	request := u.request(t, "pod")
	u.publish(t, request)
	broken := rig.StartProcess(t, u.kubelet, u.vault.Server.Address, "--vault-ca-file=/nowhere")
	if err := broken.Wait(); err == nil {
		t.Error("a version that cannot start runs")
	}
	u.standBy(t).Kill(t)
	u.standBy(t).Stop(t)
	if gap := u.publish(t, request); gap > 0 {
		t.Errorf("the active instance does not answer for %s", gap)
	}
	u.publish(t, u.request(t, "new"))
	if got := u.kubelet.RegistrationSocket(t); got != link {
		t.Errorf("the registration was %s and is %s", link, got)
	}
	u.unpublish(t, request)
	active.Stop(t)
}

// A standby that is replaced before its turn waits for its own end in peace.
func TestUpgradeOfAnUpgrade(t *testing.T) {
	u := newUpgrade(t)
	first := u.begin(t)
	second, third := u.standBy(t), u.standBy(t)
	second.Stop(t)
	request := u.request(t, "pod")
	u.publish(t, request)
	first.Stop(t)
	u.publish(t, request)
	awaitLog(t, third, `"Volumes restored"`, 1)
	u.unpublish(t, request)
	third.Stop(t)
}

// A process that hangs keeps the volumes until the kubelet ends it. The standby touches
// nothing before that, and continues with the tokens then.
func TestUpgradeOfAProcessThatHangs(t *testing.T) {
	u := newUpgrade(t)
	active := u.begin(t)
	request := u.request(t, "pod")
	u.publish(t, request)
	require.NoError(t, active.Process.Signal(syscall.SIGSTOP))
	socket, err := os.Lstat(u.kubelet.Endpoint())
	require.NoError(t, err)
	next := u.standBy(t)
	if now, err := os.Lstat(u.kubelet.Endpoint()); err != nil || !os.SameFile(now, socket) {
		t.Errorf("the standby replaces the socket: %v", err)
	}
	if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
		t.Errorf("the file holds %q", got)
	}
	active.Kill(t)
	awaitLog(t, next, `"Volumes restored"`, 1)
	u.publish(t, request)
	if tokens := u.vault.PodTokens(t); tokens != 1 {
		t.Errorf("there are %d tokens, want 1", tokens)
	}
	u.unpublish(t, request)
	next.Stop(t)
}

// A Vault takes requests and answers none: a publish that has begun is cut short when a
// standby waits, so that it holds up nobody else, and leaves nothing.
func TestUpgradeWhileAVaultHangs(t *testing.T) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer hanging.Close()
	address := "http://" + hanging.Addr().String()
	u := newUpgrade(t)
	u.arguments = []string{"--allow-address=" + address}
	active := u.begin(t)
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
	require.NoError(t, err)
	defer asked.Close()
	next := u.standBy(t)
	active.Stop(t)
	err = <-outcome
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the driver stops before the call is finished; the kubelet will call again") {
		t.Errorf("the publish in progress ends with %v", err)
	}
	rig.RequireNothing(t, waiting.GetTargetPath())
	u.publish(t, established)
	u.unpublish(t, established)
	next.Stop(t)
}

// After a reboot, or a crash, the kubelet finds the driver under a name that it has
// not tried in vain before, and under no other.
func TestRegistrationAfterACrash(t *testing.T) {
	u := newUpgrade(t)
	before := u.begin(t)
	link := u.kubelet.RegistrationSocket(t)
	before.Kill(t)
	// One of a version that put its socket there itself.
	require.NoError(t, os.WriteFile(filepath.Join(u.kubelet.Root, "plugins_registry", driverName+"-reg.sock"), nil, 0o600))
	after := u.begin(t)
	rig.Eventually(t, "there is one registration", func() bool {
		links, err := filepath.Glob(filepath.Join(u.kubelet.Root, "plugins_registry", "*"))
		return err == nil && len(links) == 1 && links[0] != link
	})
	after.Stop(t)
}

// shownKV shows what a path holds, and renders without a failure if that is nothing.
const shownKV = `{{ with secret "old/app" }}{{ range $key, $value := .Data }}{{ $key }} {{ end }}{{ end }}`

// A mount of KV version 1 is upgraded in place: Vault has nothing at its old paths
// then, and says so with a warning alone. The files keep what they hold or show the
// secret at its new path, and never nothing.
func TestUpgradeOfAMountLeavesTheFiles(t *testing.T) {
	const before, after = "html name ", "data metadata "
	for name, test := range map[string]struct{ policy, want, failure string }{
		"the policy is for the old path": {`path "old/app" { capabilities = ["read"] }`, before, "read old/data/app in Vault"},
		"the policy is for the mount":    {`path "old/*" { capabilities = ["read"] }`, after, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fixture := rig.StartVault(t)
			fixture.Write(t, "sys/policies/acl/internal-app", map[string]any{"policy": test.policy})
			n, clock := startTimedNode(t, fixture)
			request := n.request(t, "upgraded", map[string]string{"template/a": shownKV, "secret/b": "old/app"})
			n.mustPublish(t, request)
			if got := mustRead(t, rig.VolumeFile(request, "a")); got != before {
				t.Fatalf("of version 1, the file shows %q", got)
			}
			written := mustRead(t, rig.VolumeFile(request, "b"))

			fixture.Write(t, "sys/mounts/old/tune", map[string]any{"options": map[string]any{"version": "2"}})
			rig.Eventually(t, "the mount is upgraded", func() bool {
				secret, err := fixture.Root.Logical().ReadWithContext(t.Context(), "old/data/app")
				return err == nil && secret != nil && secret.Data["data"] != nil
			})
			n.pass(t, clock, 10*time.Minute)
			if got := mustRead(t, rig.VolumeFile(request, "a")); got != test.want {
				t.Errorf("upgraded, the file shows %q, want %q", got, test.want)
			}
			if got := mustRead(t, rig.VolumeFile(request, "b")); got == "" || (got == written) != (test.want == before) {
				t.Errorf("upgraded, the file of the default template holds %q", got)
			}
			err := n.volumes.Statuses()[0].Err
			if (err == nil) != (test.failure == "") || err != nil && !strings.Contains(err.Error(), test.failure) {
				t.Errorf("the volume's error is %v", err)
			}
		})
	}
}
