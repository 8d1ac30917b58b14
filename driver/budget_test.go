package driver

import (
	"errors"
	"testing"

	"k8s.io/klog/v2"
)

// forgetful is a store that keeps nothing.
type forgetful struct{}

func (forgetful) Save(string, []byte) error              { return nil }
func (forgetful) Delete(string) error                    { return nil }
func (forgetful) Load(string) (map[string][]byte, error) { return nil, nil }

func TestBudgetCountsEachVolumeOnce(t *testing.T) {
	t.Parallel()
	const budget = 10
	tests := map[string]struct {
		mounted, reserved map[string]int64
		volumeID          string
		size              int64
		fits              bool
	}{
		"the first volume":                         {nil, nil, "a", budget, true},
		"a volume that is larger than the budget":  {nil, nil, "a", budget + 1, false},
		"the last room":                            {map[string]int64{"a": 4}, map[string]int64{"b": 3}, "c", 3, true},
		"no room beside mounted volumes":           {map[string]int64{"a": 5, "b": 5}, nil, "c", 1, false},
		"no room beside one that is being made":    {nil, map[string]int64{"a": 8}, "b", 3, false},
		"one that is mounted but not yet released": {map[string]int64{"a": 5}, map[string]int64{"a": 5}, "b", 5, true},
		"one that was unmounted, made anew":        {map[string]int64{"a": 5, "b": 5}, nil, "a", 5, true},
		"one that was unmounted, made too large":   {map[string]int64{"a": 5, "b": 5}, nil, "a", 6, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mounts, err := NewMounts(klog.Background(), nil, forgetful{})
			if err != nil {
				t.Fatal(err)
			}
			for id, size := range test.mounted {
				mounts.remember(mount{VolumeID: id, Target: "/nowhere/" + id, Size: size})
			}
			for id, size := range test.reserved {
				if err := mounts.reserve(id, size, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := mounts.reserve(test.volumeID, test.size, budget); test.fits != (err == nil) || err != nil && !errors.Is(err, errBudget) {
				t.Errorf("the error is %v, and it fits: %t", err, test.fits)
			}
		})
	}
}

func TestBudgetOfZeroIsNoLimit(t *testing.T) {
	t.Parallel()
	mounts, err := NewMounts(klog.Background(), nil, forgetful{})
	if err != nil {
		t.Fatal(err)
	}
	if err := mounts.reserve("a", 1<<40, 0); err != nil {
		t.Error(err)
	}
}
