package driver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// forgetful is a store that keeps nothing.
type forgetful struct{}

func (forgetful) Save(string, []byte) error              { return nil }
func (forgetful) Delete(string) error                    { return nil }
func (forgetful) Load(string) (map[string][]byte, error) { return nil, nil }

// known is a volume of the namespace that its id starts with.
func known(id string, size int64) mount {
	namespace, _, _ := strings.Cut(id, "/")
	return mount{VolumeID: id, Target: "/nowhere/" + id, Size: size, Pod: podRef{Namespace: namespace}}
}

func newMounts(t *testing.T, c capacity) *Mounts {
	t.Helper()
	mounts, err := NewMounts(klog.Background(), nil, forgetful{})
	if err != nil {
		t.Fatal(err)
	}
	mounts.capacity = c
	return mounts
}

func TestCapacityIsForTheNodeAndEachNamespace(t *testing.T) {
	t.Parallel()
	type sizes = map[string]int64
	tests := map[string]struct {
		mounted, reserved, retained sizes
		volumeID                    string
		size                        int64
		want                        string // in the error; empty for none
	}{
		"the share of a namespace":                         {nil, nil, nil, "a/1", 6, ""},
		"one byte more than the share":                     {nil, nil, nil, "a/1", 7, `0 volumes of namespace "a" take 0 bytes of its share of 6, and this one needs 7`},
		"the rest of the share":                            {sizes{"a/1": 2}, sizes{"a/2": 3}, nil, "a/3", 1, ""},
		"one byte more than the rest":                      {sizes{"a/1": 2}, sizes{"a/2": 3}, nil, "a/3", 2, `2 volumes of namespace "a" take 5 bytes of its share of 6`},
		"another namespace beside a full one":              {sizes{"a/1": 6}, nil, nil, "b/1", 4, ""},
		"one byte more than the node":                      {sizes{"a/1": 6}, nil, nil, "b/1", 5, "1 volumes of this node take 6 bytes of its capacity of 10, and this one needs 5"},
		"a volume that is mounted but not yet released":    {sizes{"a/1": 5}, sizes{"a/1": 5}, nil, "b/1", 5, ""},
		"a volume that was unmounted and is mounted again": {sizes{"a/1": 5, "b/1": 5}, nil, nil, "a/1", 5, ""},
		"responses that the provider retains":              {sizes{"a/1": 1}, nil, sizes{"a/1": 4}, "a/2", 1, ""},
		"a byte more than they leave":                      {sizes{"a/1": 1}, nil, sizes{"a/1": 4}, "a/2", 2, `1 volumes of namespace "a" take 5 bytes`},
		"its own responses":                                {nil, nil, sizes{"a/1": 6}, "a/1", 1, "this one needs 7"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mounts := newMounts(t, capacity{retained: func(id string) int64 { return test.retained[id] }})
			for id, size := range test.mounted {
				mounts.volumes[id] = &mounted{mount: known(id, size)}
			}
			for id, size := range test.reserved {
				must(t, mounts.reserve(known(id, size)))
			}
			mounts.capacity.node, mounts.capacity.namespace = 10, 6
			err := mounts.reserve(known(test.volumeID, test.size))
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, errCapacity) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && (len(err.Error()) > 400 || !strings.Contains(err.Error(), "ask for less with the attribute size")) {
				t.Errorf("an error of %d characters, or one without a remedy: %v", len(err.Error()), err)
			}
		})
	}
}

// Directories take kernel memory, which no size of a tmpfs bounds.
func TestCapacityCountsInodes(t *testing.T) {
	t.Parallel()
	v := known("a/1", 100)
	v.Inodes = 7
	need := v.Size + 7*tmpfs.InodeBytes
	must(t, newMounts(t, capacity{node: need}).reserve(v))
	if err := newMounts(t, capacity{node: need - 1}).reserve(v); !errors.Is(err, errCapacity) {
		t.Errorf("one byte too many: %v", err)
	}
}

func TestCapacityOfZeroIsNoLimit(t *testing.T) {
	t.Parallel()
	must(t, newMounts(t, capacity{}).reserve(known("a/1", 1<<40)))
}

// The metrics name no namespace: a tenant would choose the value of a label.
func TestSpaceTellsOfTheLargestNamespace(t *testing.T) {
	t.Parallel()
	mounts := newMounts(t, capacity{retained: func(string) int64 { return 1 }})
	for i, id := range []string{"a/1", "a/2", "b/1", "/3"} {
		mounts.volumes[id] = &mounted{mount: known(id, int64(10*(i+1)))}
	}
	if total, largest, _ := mounts.Space(); total.Size != 104 || largest != 32 {
		t.Errorf("the volumes take %d bytes, those of the largest namespace %d", total.Size, largest)
	}
}

// The cost of one volume more grows with the number of volumes, and no faster.
func BenchmarkReserve(b *testing.B) {
	mounts, err := NewMounts(klog.Background(), nil, forgetful{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		id := fmt.Sprintf("a/%d", i)
		mounts.volumes[id] = &mounted{mount: known(id, 1)}
	}
	for b.Loop() {
		if err := mounts.reserve(known("b/1", 1)); err != nil {
			b.Fatal(err)
		}
	}
}
