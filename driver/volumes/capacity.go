package volumes

import (
	"errors"
	"fmt"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// ErrCapacity is a volume that fits neither the node nor the quota of its namespace. The
// kubelet tries again, since another volume may go.
var ErrCapacity = errors.New("no capacity for the volume")

// The driver writes the files, so the kernel counts them against the driver's container and
// not against the pod's: without a capacity, tenants could have the driver killed.

// claim is memory that a volume of a namespace takes.
type claim struct {
	namespace string
	bytes     int64
}

// total sums claims.
type total struct {
	bytes   int64
	volumes int
}

func (t *total) add(bytes int64) {
	t.bytes += bytes
	t.volumes++
}

// totals sums the claims of a node, and those of one of its namespaces. It keeps no list:
// each publish sums the claims of all volumes.
type totals struct {
	of              string
	node, namespace total
}

func (t *totals) add(c claim) {
	t.node.add(c.bytes)
	if c.namespace == t.of {
		t.namespace.add(c.bytes)
	}
}

// bytes is what the volume takes of the capacity besides what the provider retains.
func (v Volume) bytes() int64 { return v.Size + int64(v.Inodes)*tmpfs.InodeBytes }

// claim is what the volume takes of the capacity. The mutex is held.
func (e *entry) claim() claim { return claim{e.volume.Pod.Namespace, e.volume.bytes() + e.retained()} }

// retained is what the provider keeps for the volume, in bytes. The mutex is held.
func (e *entry) retained() (bytes int64) {
	if secrets := e.secrets.Load(); secrets != nil {
		bytes = secrets.RetainedBytes()
	}
	for _, each := range e.replaced {
		if each != nil {
			bytes += each.RetainedBytes()
		}
	}
	return bytes
}

// admit makes a volume that is about to be mounted, or to grow, take capacity. Its entry is
// in the table then, in place of one that is not mounted any more.
func (m *Manager) admit(e *entry, v Volume) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	others := totals{of: v.Pod.Namespace}
	for id, other := range m.table {
		if id != v.ID {
			others.add(other.claim())
		}
	}
	m.dropFreed()
	for _, each := range m.freeing {
		others.add(each)
	}
	if err := m.config.checkCapacity(claim{v.Pod.Namespace, v.bytes() + e.retained()}, others); err != nil {
		return err
	}
	e.volume, m.table[v.ID] = v, e
	return nil
}

// checkCapacity reports whether one more claim fits beside others.
func (c Config) checkCapacity(need claim, others totals) error {
	node, namespace := others.node, others.namespace
	if c.NamespaceQuota > 0 && namespace.bytes+need.bytes > c.NamespaceQuota {
		return fmt.Errorf("%w: %d volumes of namespace %q take %d bytes of its share of %d, and this one needs %d; ask for less with the attribute size, or raise the driver's --namespace-share or --volume-capacity", ErrCapacity, namespace.volumes, need.namespace, namespace.bytes, c.NamespaceQuota, need.bytes)
	}
	if c.Capacity > 0 && node.bytes+need.bytes > c.Capacity {
		return fmt.Errorf("%w: %d volumes of this node take %d bytes of its capacity of %d, and this one needs %d; ask for less with the attribute size, or raise the driver's --volume-capacity and the memory limit of its container", ErrCapacity, node.volumes, node.bytes, c.Capacity, need.bytes)
	}
	return nil
}

// unwatched is the watch of a volume whose memory nobody watches.
const unwatched = -1

// watch begins to watch the memory of a volume that is about to be unmounted. Without, the
// volume counts no more once it is unmounted.
func (m *Manager) watch(target string) (watch int) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var err error
	if m.watcher == nil {
		m.watcher, err = tmpfs.NewReleaseWatcher()
	}
	if err == nil {
		watch, err = m.watcher.Watch(target)
	}
	if err == nil {
		return watch
	}
	if !errors.Is(err, tmpfs.ErrNotMounted) {
		m.config.Logger.V(levelChange).Info("Memory of a volume is not watched; it does not count while a process still uses it", logReason, err.Error())
	}
	return unwatched
}

// countUntilFree counts a volume that is unmounted until its memory is free: a process of
// the node may have one of its files open.
func (m *Manager) countUntilFree(watch int, v Volume) {
	if watch == unwatched {
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.freeing[watch] = claim{v.Pod.Namespace, v.bytes()}
	m.dropFreed()
}

// dropFreed forgets the volumes whose memory is free. The mutex is held.
func (m *Manager) dropFreed() {
	if m.watcher == nil {
		return
	}
	freed, all := m.watcher.Freed()
	if all {
		clear(m.freeing)
	}
	for _, watch := range freed {
		delete(m.freeing, watch)
	}
}

// Usage is what the volumes take, in bytes.
type Usage struct {
	// Capacity is what they take of the node's capacity, and LargestNamespace what those of
	// the namespace take that takes most.
	Capacity, LargestNamespace int64
	// Files is the memory of their files.
	Files int64
	// Unrecorded counts the volumes that have no record.
	Unrecorded int
}

// Usage returns what the volumes take now.
func (m *Manager) Usage() Usage {
	var usage Usage
	namespaces := map[string]int64{}
	add := func(c claim) {
		usage.Capacity += c.bytes
		if namespaces[c.namespace] += c.bytes; c.namespace != "" {
			usage.LargestNamespace = max(usage.LargestNamespace, namespaces[c.namespace])
		}
	}
	var targets []string
	m.mutex.Lock()
	for _, e := range m.table {
		if e.pending {
			continue
		}
		add(e.claim())
		targets = append(targets, e.volume.Target)
		if e.volume.isUnrecorded() {
			usage.Unrecorded++
		}
	}
	m.dropFreed()
	for _, each := range m.freeing {
		add(each)
	}
	m.mutex.Unlock()
	for _, target := range targets {
		if used, err := tmpfs.ReadUsage(target); err == nil { // or it has just gone
			usage.Files += used.BytesUsed
		}
	}
	return usage
}
