package driver

import (
	"errors"
	"fmt"

	"github.com/vaultmount/vaultmount/driver/monitor"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// errBudget is a node whose volumes may take no more memory. The kubelet tries
// again, since another volume may go.
var errBudget = errors.New("the volumes of this node take all the memory that they may take together")

// reserve sets memory apart for a volume that is about to be made, within a budget
// in bytes; 0 is no limit. The files are written by the driver, so the kernel
// counts them against the driver's container and not the pod's: without a budget,
// tenants could have the driver killed. It is followed by release.
func (m *Mounts) reserve(volumeID string, size, budget int64) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if taken, volumes := m.takenBesides(volumeID); budget > 0 && taken+size > budget {
		return fmt.Errorf("%w: %d bytes of %d are taken by %d volumes, and this one has %d; ask for less with the attribute size, or raise the driver's --volume-budget and the memory limit of its container", errBudget, taken, budget, volumes, size)
	}
	m.reserved[volumeID] = size
	return nil
}

// release ends a reservation: the volume is there by now, or it never will be.
func (m *Mounts) release(volumeID string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.reserved, volumeID)
}

// takenBesides is the memory of all volumes but one by their sizes, and how many they
// are. The one is about to be made: if it is known already, somebody has unmounted it,
// and what it had must not keep it from being mounted anew. The mutex is held.
func (m *Mounts) takenBesides(volumeID string) (total int64, volumes int) {
	for id, volume := range m.volumes {
		if id != volumeID {
			total += volume.mount.Size
			volumes++
		}
	}
	for id, size := range m.reserved {
		if id != volumeID && m.volumes[id] == nil { // between create and release it is both
			total += size
			volumes++
		}
	}
	return total, volumes
}

// space is what the volumes take now. One that goes meanwhile is left out.
func (m *Mounts) space() monitor.Space {
	total := monitor.Space{}
	for _, each := range m.all() {
		total.Size += each.Size
		if usage, err := tmpfs.ReadUsage(each.Target); err == nil {
			total.Used += usage.BytesUsed
		}
	}
	return total
}

// measured asks the kernel for the size of a volume whose record does not hold it.
func (v mount) measured() mount {
	if v.Size > 0 {
		return v
	}
	if usage, err := tmpfs.ReadUsage(v.Target); err == nil {
		v.Size = usage.BytesTotal
	}
	return v
}
