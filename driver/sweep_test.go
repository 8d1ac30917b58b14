package driver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider"
)

// closings is a provider that notes which volumes are closed.
type closings map[string]bool

func (closings) Open(context.Context, provider.Request) ([]provider.RenderedFile, error) {
	return nil, nil
}
func (closings) Republish(provider.Request) {}
func (c closings) Close(volumeID string)    { c[volumeID] = true }

// Of what is not mounted, the kubelet mounts anew what it knows; a sweep must not come
// before that.
func TestSweepOfWhatIsNotMounted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		forgotten, removed bool
		remounted          bool // between the first sweep and the second
		closed             [2]bool
	}{
		"the kubelet has removed its directory":       {true, true, false, [2]bool{true, true}},
		"the kubelet has forgotten it":                {true, false, false, [2]bool{false, true}},
		"the kubelet does not mount it again":         {false, false, false, [2]bool{false, true}},
		"it was mounted once more, and is gone again": {false, false, true, [2]bool{false, false}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := Config{Name: "csi.vaultmount.dev", NodeName: "node", KubeletRoot: t.TempDir(), VolumeSize: 1, MaxVolumeSize: 1}
			v := mount{VolumeID: "v", Target: filepath.Join(config.KubeletRoot, "pods", "uid", "volumes", "kubernetes.io~csi", "secrets", "mount"), Size: 1}
			if err := os.MkdirAll(filepath.Dir(v.Target), 0o750); err != nil {
				t.Fatal(err)
			}
			if !test.forgotten {
				if err := os.WriteFile(filepath.Join(filepath.Dir(v.Target), "vol_data.json"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if test.removed {
				must(t, os.RemoveAll(filepath.Join(config.KubeletRoot, "pods", "uid")))
			}
			mounts, err := NewMounts(klog.Background(), nil, forgetful{})
			if err != nil {
				t.Fatal(err)
			}
			closed := closings{}
			d := NewNodeServer(config)
			d.Start(mounts, closed)
			mounts.adopt(v)
			for i, want := range test.closed {
				d.sweep(klog.Background())
				if closed["v"] != want || (mounts.find("v") == nil) != want {
					t.Errorf("after sweep %d, it is closed: %t, and known: %t", i+1, closed["v"], mounts.find("v") != nil)
				}
				if test.remounted {
					mounts.volumes["v"] = newMounted(v)
				}
			}
		})
	}
}
