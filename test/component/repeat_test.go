package component

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/test/rig"
)

// listener is a provider that only notes what a republish tells it.
type listener struct{ heard []provider.Request }

func (l *listener) Open(_ context.Context, request provider.Request) ([]provider.RenderedFile, error) {
	return make([]provider.RenderedFile, len(request.Files)), nil
}
func (l *listener) Republish(request provider.Request) { l.heard = append(l.heard, request) }
func (l *listener) Close(string)                       {}

// The kubelet says the same thing again and again. What it said is read once, and
// whatever is new in it is told.
func TestRepublishTellsWhatIsNew(t *testing.T) {
	t.Parallel()
	bundle := "first"
	kubelet, issuer := rig.NewKubelet(t), rig.NewIssuer(t)
	told, publish := startListening(t, kubelet, func() (string, error) { return bundle, nil })
	request := kubelet.Request(t, issuer, "pod", map[string]string{"template/db": "text"})
	publish(request)
	named := kubelet.Request(t, issuer, "named", map[string]string{"template/db": `{{ file "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" }}`})
	publish(named)
	for _, step := range []struct {
		name    string
		change  func()
		request *csi.NodePublishVolumeRequest
		same    bool
	}{
		{"what made the volume", func() {}, request, true},
		{"a fresh token", func() { request.Secrets[rig.TokensKey] = issuer.Tokens(t, "pod", rig.Role) }, request, false},
		{"the fresh token again", func() {}, request, true},
		{"another CA bundle on disk", func() { bundle = "second" }, request, false},
		{"that bundle again", func() {}, request, true},
		{"an attribute", func() { request.VolumeContext["client-timeout"] = "20s" }, request, false},
		{"a key of the Secret", func() { request.Secrets["key"] = "value" }, request, false},
		{"the same text at another key", func() { delete(request.Secrets, "key"); request.Secrets["ke"] = "yvalue" }, request, false},
		{"a group", func() { request.VolumeCapability.GetMount().VolumeMountGroup = "1000" }, request, false},
		{"a file system", func() { request.VolumeCapability.GetMount().FsType = "tmpfs" }, request, false},
		{"all of it again", func() {}, request, true},
		{"what may change on disk", func() {}, named, false},
		{"what may change on disk, again", func() {}, named, false},
	} {
		step.change()
		publish(step.request)
		last := told.heard[len(told.heard)-1]
		if last.VolumeID != step.request.GetVolumeId() || last.Same != step.same || (last.Login.JWT == "") != step.same {
			t.Errorf("%s: told %t, want %t", step.name, last.Same, step.same)
		}
	}
}

func startListening(t *testing.T, kubelet *rig.Kubelet, readCA func() (string, error)) (*listener, func(*csi.NodePublishVolumeRequest)) {
	t.Helper()
	mounter, err := tmpfs.NewMounter(rig.DriverName)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(kubelet.StateDirectory()), 0o700); err != nil {
		t.Fatal(err)
	}
	state, err := mounter.OpenStateMount(kubelet.StateDirectory(), checkpoint.Size)
	if err != nil {
		t.Fatal(err)
	}
	store, err := checkpoint.Open(klog.Background(), state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	mounts, err := driver.NewMounts(klog.Background(), mounter, store)
	if err != nil {
		t.Fatal(err)
	}
	told := &listener{}
	volumes := driver.NewNodeServer(driver.Config{
		Name: driverName, NodeName: "node-1", KubeletRoot: kubelet.Root, VolumeSize: 1 << 20, MaxVolumeSize: 1 << 20,
		Vault: driver.VaultConfig{Address: "http://127.0.0.1:1", ReadCA: readCA},
	})
	volumes.Start(mounts, told)
	return told, func(request *csi.NodePublishVolumeRequest) {
		t.Helper()
		if _, err := volumes.NodePublishVolume(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
}
