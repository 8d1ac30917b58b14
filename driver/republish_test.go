package driver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
)

// listener is a provider that only notes what it is told. A volume without secrets is
// passed on at each republish that says something new.
type listener struct{ heard []provider.Request }

func (*listener) Publish(_ context.Context, request provider.Request, _ provider.Sink) (*provider.Volume, []provider.RenderedFile, error) {
	return nil, make([]provider.RenderedFile, len(request.Files)), nil
}

func (l *listener) TakeOver(request provider.Request, _ provider.Sink) *provider.Volume {
	l.heard = append(l.heard, request)
	return nil
}

func (*listener) Restore([]byte, provider.Sink) (*provider.Volume, error) { return nil, nil }

// The kubelet says the same thing again and again. What it said is read once, and what is
// new is handed on. The test mounts, so it needs root.
func TestRepublishHandsOnWhatIsNew(t *testing.T) {
	t.Parallel()
	config, bundle, clusterCA := newNode(t), "first", "first"
	config.VolumeSize, config.MaxVolumeSize = 1<<20, 1<<20
	told := &listener{}
	node, request := newNodeServer(t, config, told)
	node.config.Vault = VaultConfig{ReadCA: func() (string, error) { return bundle, nil }, ReadClusterCA: func(string) (string, error) { return clusterCA, nil }}
	must(t, os.MkdirAll(filepath.Dir(request.GetTargetPath()), 0o750))
	t.Cleanup(func() { must(t, tmpfs.Remove(request.GetTargetPath())) })
	publish := func() {
		_, err := node.NodePublishVolume(t.Context(), request)
		must(t, err)
	}
	publish()
	for _, step := range []struct {
		name   string
		change func(*csi.NodePublishVolumeRequest)
		same   bool
	}{
		{"what made the volume", func(*csi.NodePublishVolumeRequest) {}, true},
		{"a fresh token", func(r *csi.NodePublishVolumeRequest) { r.Secrets[keyTokens] += " " }, false},
		{"the fresh token again", func(*csi.NodePublishVolumeRequest) {}, true},
		{"another CA bundle on disk", func(*csi.NodePublishVolumeRequest) { bundle = "second" }, false},
		{"that bundle again", func(*csi.NodePublishVolumeRequest) {}, true},
		{"another CA certificate of the cluster", func(*csi.NodePublishVolumeRequest) { clusterCA = "second" }, false},
		{"an attribute", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext["client-timeout"] = "20s" }, false},
		{"a key of the Secret", func(r *csi.NodePublishVolumeRequest) { r.Secrets["key"] = "value" }, false},
		{"the same text at another key", func(r *csi.NodePublishVolumeRequest) { delete(r.Secrets, "key"); r.Secrets["ke"] = "yvalue" }, false},
		{"a group", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().VolumeMountGroup = "1000" }, false},
		{"a file system", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability.GetMount().FsType = "tmpfs" }, false},
		{"all of it again", func(*csi.NodePublishVolumeRequest) {}, true},
	} {
		step.change(request)
		before := len(told.heard)
		publish()
		if same := len(told.heard) == before; same != step.same {
			t.Errorf("%s: told %t, want %t", step.name, !same, !step.same)
		}
	}
}

// The cost of the hash that most republishes come to.
func BenchmarkRequestHash(b *testing.B) {
	node := NewNodeServer(Config{Vault: VaultConfig{ReadCA: func() (string, error) { return "", nil }}})
	request := &csi.NodePublishVolumeRequest{VolumeContext: map[string]string{"template/a": "x", "secret/b": "kv/b"}, Secrets: map[string]string{keyTokens: bothTokens()}}
	for b.Loop() {
		node.requestHash(request)
	}
}

// What a republish that says something new costs beside that.
func BenchmarkDecode(b *testing.B) {
	node := NewNodeServer(Config{MaxVolumeSize: 1 << 20, VolumeSize: 1 << 20, Vault: VaultConfig{ReadCA: func() (string, error) { return "", nil }}})
	request := &csi.NodePublishVolumeRequest{
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		VolumeContext: map[string]string{
			keyEphemeral: "true", keyPodName: "web", keyPodNamespace: "shop", keyPodUID: "1-2-3", keyServiceAccount: "app", "role": "app", "template/a": "x", "secret/b": "kv/b",
		},
		Secrets: map[string]string{keyTokens: bothTokens()},
	}
	for b.Loop() {
		if _, err := node.decode(klog.Logger{}, request); err != nil {
			b.Fatal(err)
		}
	}
}
