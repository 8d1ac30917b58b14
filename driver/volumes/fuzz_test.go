package volumes

import (
	"encoding/json"
	"testing"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/cost"
)

// oneRecord is a store with a record that some process has left.
type oneRecord struct {
	text    []byte
	deleted bool
}

func (s *oneRecord) Save(string, []byte) error { return nil }

func (s *oneRecord) Delete(string) error {
	s.deleted = true
	return nil
}

func (s *oneRecord) Load(string) (map[string][]byte, error) {
	return map[string][]byte{recordKey("csi-1"): s.text}, nil
}

// Whatever is in the state: the record of a volume is taken over, or it is
// dropped, and the driver starts, in time and memory in proportion to its size.
func FuzzRecord(f *testing.F) {
	good, err := json.Marshal(Volume{ID: "csi-1", Target: "/t", Files: []File{{Path: "a", Perms: 0o440}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(good), string(good) + "\n{}", "", "null", "{", "\n", `{"ID":"a"}`, `{"ID":"a","Target":1}`, `{"ID":"csi-1","Target":"b","Files":[{"Perms":-1}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		store := &oneRecord{text: text}
		m := New(Config{Logger: klog.Logger{}, Store: store, Provider: files(nil), KubeletRoot: t.TempDir()})
		var err error
		cost.Assert(t, len(text), func() { err = m.Restore(t.Context()) })
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.all() {
			if e.volume.ID == "" || e.volume.Target == "" {
				t.Errorf("a volume without an id or a target: %+v", e.volume)
			}
		}
		if store.deleted == (len(m.all()) > 0) {
			t.Error("a record is either taken over or deleted")
		}
	})
}
