package driver

import (
	"errors"
	"fmt"

	"github.com/vaultmount/vaultmount/driver/metrics"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// errCapacity is a node whose volumes may take no more memory. The kubelet tries
// again, since another volume may go.
var errCapacity = errors.New("no capacity for the volume")

// capacity is how much memory volumes may take. The driver writes the files, so the
// kernel counts them against the driver's container and not against the pod's: without
// a capacity, tenants could have the driver killed.
type capacity struct {
	// node is for all volumes of the node, and namespace for those of one namespace, in
	// bytes; 0 for no limit.
	node, namespace int64
	// retained is what the provider keeps for a volume, in bytes; nil for nothing.
	retained func(volumeID string) int64
}

// claim is memory that a volume is about to take.
type claim struct {
	namespace string
	bytes     int64
}

// taken is what volumes take together.
type taken struct {
	bytes   int64
	volumes int
}

func (t *taken) add(bytes int64) {
	t.bytes += bytes
	t.volumes++
}

// reserve sets memory apart for a volume that is about to be mounted, or to grow. It is
// followed by release.
func (m *Mounts) reserve(v mount) error {
	need := v.charge() + m.retained(v.VolumeID)
	retained := m.retainedOfAll()
	m.mutex.Lock()
	defer m.mutex.Unlock()
	node, namespace := m.takenBesides(v, retained)
	if most := m.capacity.namespace; most > 0 && namespace.bytes+need > most {
		return fmt.Errorf("%w: %d volumes of namespace %q take %d bytes of its share of %d, and this one needs %d; ask for less with the attribute size, or raise the driver's --namespace-share or --volume-capacity", errCapacity, namespace.volumes, v.Pod.Namespace, namespace.bytes, most, need)
	}
	if most := m.capacity.node; most > 0 && node.bytes+need > most {
		return fmt.Errorf("%w: %d volumes of this node take %d bytes of its capacity of %d, and this one needs %d; ask for less with the attribute size, or raise the driver's --volume-capacity and the memory limit of its container", errCapacity, node.volumes, node.bytes, most, need)
	}
	m.reserved[v.VolumeID] = claim{v.Pod.Namespace, need}
	return nil
}

// release ends a reservation: the volume is there by now, or it never will be.
func (m *Mounts) release(volumeID string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	delete(m.reserved, volumeID)
}

// takenBesides is the memory of all other volumes, of the node and of the namespace. The
// volume itself may be known already: somebody has unmounted it, or it is to grow. The
// mutex is held.
func (m *Mounts) takenBesides(v mount, retained map[string]int64) (node, namespace taken) {
	add := func(of string, bytes int64) {
		node.add(bytes)
		if of == v.Pod.Namespace {
			namespace.add(bytes)
		}
	}
	for id, volume := range m.volumes {
		if id != v.VolumeID {
			add(volume.mount.Pod.Namespace, max(volume.mount.charge()+retained[id], m.reserved[id].bytes))
		}
	}
	m.dropFreed()
	for _, each := range m.lingering {
		add(each.namespace, each.bytes)
	}
	for id, each := range m.reserved {
		if id != v.VolumeID && m.volumes[id] == nil {
			add(each.namespace, each.bytes)
		}
	}
	return node, namespace
}

// unwatched is the id of a volume whose memory nobody watches.
const unwatched = -1

// watch begins to watch the memory of a volume that is about to be unmounted. Without, the
// volume counts no more once it is unmounted.
func (m *Mounts) watch(target string) (id int) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var err error
	if m.releases == nil {
		m.releases, err = tmpfs.NewReleaseWatcher()
	}
	if err == nil {
		id, err = m.releases.Watch(target)
	}
	if err == nil {
		return id
	}
	if !errors.Is(err, tmpfs.ErrNotMounted) {
		m.logger.V(levelChange).Info("Memory of a volume is not watched; it does not count while a process still uses it", "reason", err.Error())
	}
	return unwatched
}

// linger counts a volume that is unmounted until its memory is free.
func (m *Mounts) linger(id int, v mount) {
	if id == unwatched {
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lingering[id] = claim{v.Pod.Namespace, v.charge()}
	m.dropFreed()
}

// dropFreed forgets the volumes whose memory is free. The mutex is held.
func (m *Mounts) dropFreed() {
	if m.releases == nil {
		return
	}
	freed, all := m.releases.Freed()
	if all {
		clear(m.lingering)
	}
	for _, id := range freed {
		delete(m.lingering, id)
	}
}

// Close ends the watches. Nothing is mounted or removed any more.
func (m *Mounts) Close() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.releases != nil {
		m.releases.Close()
		m.releases = nil
	}
}

func (m *Mounts) retained(volumeID string) int64 {
	if m.capacity.retained == nil {
		return 0
	}
	return m.capacity.retained(volumeID)
}

// retainedOfAll asks the provider without the mutex, which may be waiting for a lock of
// its own.
func (m *Mounts) retainedOfAll() map[string]int64 {
	if m.capacity.retained == nil {
		return nil
	}
	all := map[string]int64{}
	for _, each := range m.all() {
		all[each.VolumeID] = m.capacity.retained(each.VolumeID)
	}
	return all
}

// Space is what the volumes take now. One that goes meanwhile is left out.
func (m *Mounts) Space() (total metrics.Memory, largest int64, unrecorded int) {
	namespaces := map[string]int64{}
	retained := m.retainedOfAll()
	for _, each := range m.all() {
		bytes := each.charge() + retained[each.VolumeID]
		total.Size += bytes
		if each.isUnrecorded() {
			unrecorded++
		}
		if namespaces[each.Pod.Namespace] += bytes; each.Pod.Namespace != "" {
			largest = max(largest, namespaces[each.Pod.Namespace])
		}
		if usage, err := tmpfs.ReadUsage(each.Target); err == nil {
			total.Used += usage.BytesUsed
		}
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.dropFreed()
	for _, each := range m.lingering {
		total.Size += each.bytes
		namespaces[each.namespace] += each.bytes
		largest = max(largest, namespaces[each.namespace])
	}
	return total, largest, unrecorded
}

// measured asks the kernel for the size of a volume whose record does not hold it.
func (v mount) measured() mount {
	if v.Size > 0 && v.Inodes > 0 {
		return v
	}
	if usage, err := tmpfs.ReadUsage(v.Target); err == nil {
		v.Size, v.Inodes = usage.BytesTotal, int(usage.InodesTotal)
	}
	return v
}
