package volumes

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// named is a volume of the namespace that its id starts with.
func named(id string, size int64) Volume {
	namespace, _, _ := strings.Cut(id, "/")
	return Volume{ID: id, Target: "/nowhere/" + id, Size: size, Pod: Pod{Namespace: namespace}, Files: []File{{Path: "a"}}}
}

func TestCapacityIsForTheNodeAndEachNamespace(t *testing.T) {
	t.Parallel()
	type sizes = map[string]int64
	tests := map[string]struct {
		mounted, pending sizes
		volumeID         string
		size             int64
		want             string // in the error; empty for none
	}{
		"the share of a namespace":                         {nil, nil, "a/1", 6, ""},
		"one byte more than the share":                     {nil, nil, "a/1", 7, `0 volumes of namespace "a" take 0 bytes of its share of 6, and this one needs 7`},
		"the rest of the share":                            {sizes{"a/1": 2}, sizes{"a/2": 3}, "a/3", 1, ""},
		"one byte more than the rest":                      {sizes{"a/1": 2}, sizes{"a/2": 3}, "a/3", 2, `2 volumes of namespace "a" take 5 bytes of its share of 6`},
		"another namespace beside a full one":              {sizes{"a/1": 6}, nil, "b/1", 4, ""},
		"one byte more than the node":                      {sizes{"a/1": 6}, nil, "b/1", 5, "1 volumes of this node take 6 bytes of its capacity of 10, and this one needs 5"},
		"a volume that is about to be mounted":             {nil, sizes{"a/1": 5}, "b/1", 5, ""},
		"a volume that was unmounted and is mounted again": {sizes{"a/1": 5, "b/1": 5}, nil, "a/1", 5, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := New(Config{Capacity: 10, NamespaceQuota: 6})
			for id, size := range test.mounted {
				m.table[id] = &entry{manager: m, volume: named(id, size)}
			}
			for id, size := range test.pending {
				must(t, m.admit(&entry{manager: m, pending: true}, named(id, size)))
			}
			err := m.admit(&entry{manager: m}, named(test.volumeID, test.size))
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrCapacity) || !strings.Contains(err.Error(), test.want)) {
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
	v := named("a/1", 100)
	v.Inodes = 7
	need := v.Size + 7*tmpfs.InodeBytes
	must(t, New(Config{Capacity: need}).admit(&entry{}, v))
	if err := New(Config{Capacity: need - 1}).admit(&entry{}, v); !errors.Is(err, ErrCapacity) {
		t.Errorf("one byte too many: %v", err)
	}
}

// What the provider keeps of Vault's responses counts as well.
func TestCapacityCountsAllClaims(t *testing.T) {
	t.Parallel()
	c := Config{Capacity: 10, NamespaceQuota: 6}
	must(t, c.checkCapacity(claim{"a", 2}, sum("a", claim{"a", 4}, claim{"b", 4})))
	if err := c.checkCapacity(claim{"a", 3}, sum("a", claim{"a", 4})); !errors.Is(err, ErrCapacity) {
		t.Errorf("one byte too many: %v", err)
	}
}

func TestCapacityOfZeroIsNoLimit(t *testing.T) {
	t.Parallel()
	must(t, New(Config{}).admit(&entry{}, named("a/1", 1<<40)))
}

// The metrics name no namespace: a tenant would choose the value of a label.
func TestUsageTellsOfTheLargestNamespace(t *testing.T) {
	t.Parallel()
	m := New(Config{})
	for i, id := range []string{"a/1", "a/2", "b/1", "/3"} {
		m.table[id] = &entry{manager: m, volume: named(id, int64(10*(i+1)))}
	}
	m.table["b/2"] = &entry{manager: m, volume: named("b/2", 1000), pending: true}
	if usage := m.Usage(); usage.Capacity != 100 || usage.LargestNamespace != 30 {
		t.Errorf("the volumes take %+v", usage)
	}
}

// The cost of one volume more grows with the number of volumes, and no faster.
func BenchmarkAdmit(b *testing.B) {
	m := New(Config{})
	for i := range 1000 {
		id := fmt.Sprintf("a/%d", i)
		m.table[id] = &entry{manager: m, volume: named(id, 1)}
	}
	for b.Loop() {
		if err := m.admit(&entry{}, named("b/1", 1)); err != nil {
			b.Fatal(err)
		}
	}
}

func sum(namespace string, claims ...claim) totals {
	t := totals{of: namespace}
	for _, each := range claims {
		t.add(each)
	}
	return t
}
