package volumes

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/klog/v2"
)

// Of what is not mounted, the kubelet mounts again what it knows; a collection must not
// come before that.
func TestOrphansThatAreNotMounted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		forgotten, removed bool
		remounted          bool // between the collections
		dropped            [2]bool
	}{
		"the kubelet has removed its directory":       {true, true, false, [2]bool{true, true}},
		"the kubelet has forgotten it":                {true, false, false, [2]bool{false, true}},
		"the kubelet does not mount it again":         {false, false, false, [2]bool{false, true}},
		"it was mounted once more, and is gone again": {false, false, true, [2]bool{false, false}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := New(Config{Logger: klog.Background(), Store: &memory{records: map[string][]byte{}}, Provider: files(nil), KubeletRoot: t.TempDir()})
			v := Volume{ID: "v", Target: filepath.Join(m.podsDirectory(), "uid", "volumes", "kubernetes.io~csi", "secrets", "mount"), Size: 1, Inodes: 1, Files: []File{{Path: "a"}}}
			must(t, os.MkdirAll(filepath.Dir(v.Target), 0o750))
			if !test.forgotten {
				must(t, os.WriteFile(filepath.Join(filepath.Dir(v.Target), "vol_data.json"), nil, 0o600))
			}
			if test.removed {
				must(t, os.RemoveAll(filepath.Join(m.podsDirectory(), "uid")))
			}
			m.findOrAdd(v).redescribe(v)
			for i, want := range test.dropped {
				m.collect()
				if dropped := m.find("v") == nil; dropped != want {
					t.Errorf("after collection %d, it is dropped: %t", i+1, dropped)
				}
				if test.remounted {
					m.table["v"] = &entry{manager: m, volume: v, called: true}
				}
			}
		})
	}
}
