package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"

	apiserver "github.com/vaultmount/vaultmount/driver/kube"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Store keeps records for the next process, see driver/checkpoint.
type Store interface {
	Save(key string, record []byte) error
	Delete(key string) error
	Load(prefix string) (map[string][]byte, error)
}

// Mounts are the volumes that are mounted on the node, each with what its files
// are besides their content. The provider hands it the content. It may be used
// concurrently.
type Mounts struct {
	logger   klog.Logger
	mounter  *tmpfs.Mounter
	store    Store
	capacity capacity

	mutex   sync.Mutex // taken after that of a volume
	volumes map[string]*mounted
	// reserved is the memory of volumes that are about to be mounted, and lingering that
	// of volumes that are unmounted and that a process of the node still uses.
	reserved  map[string]claim
	lingering map[int]claim
	releases  *tmpfs.ReleaseWatcher // nil before the first volume is removed
}

// mounted is a volume. Its mutex keeps a refresh, a mount and a removal apart.
type mounted struct {
	mutex sync.Mutex
	gone  bool
	// mount is written with both mutexes, and read with either.
	mount mount
	// recordBytes is the size of its record. It belongs to the mutex of Mounts.
	recordBytes int
	missed      atomic.Bool // a sweep has found it unmounted
	called      atomic.Bool // by the kubelet, since the last sweep
	// fingerprint is that of the kubelet's last call for it that was of use, 0 for none.
	fingerprint atomic.Uint64
}

// newMounted is for a volume that the kubelet knows, as far as anybody can tell.
func newMounted(v mount) *mounted {
	volume := &mounted{mount: v}
	volume.called.Store(true)
	return volume
}

const mountPrefix = "mount-"

var (
	errUnmounted  = fmt.Errorf("the volume is not mounted any more: %w", provider.ErrClosed)
	errUnrecorded = fmt.Errorf("the volume has no record before the kubelet's next call for it: %w", provider.ErrClosed)
)

// NewMounts takes over what an earlier process has mounted.
func NewMounts(logger klog.Logger, mounter *tmpfs.Mounter, store Store) (*Mounts, error) {
	m := &Mounts{logger: logger, mounter: mounter, store: store, volumes: map[string]*mounted{}, reserved: map[string]claim{}, lingering: map[int]claim{}}
	records, err := store.Load(mountPrefix)
	if err != nil {
		return nil, fmt.Errorf("read the state of the mounted volumes: %w", err)
	}
	for key, text := range records {
		var record mount
		if json.Unmarshal(text, &record) != nil || record.VolumeID == "" || record.Target == "" {
			logger.Error(nil, "Record of a mount not readable; the volume is adopted at its next republish", "record", key)
			m.forget(key)
			continue
		}
		volume := newMounted(record.measured())
		volume.recordBytes = len(text)
		m.volumes[record.VolumeID] = volume
	}
	return m, nil
}

// Replace swaps the files of a volume; it implements provider.Files. Content that
// is there already is not written again.
func (m *Mounts) Replace(volumeID string, contents []provider.RenderedFile) error {
	volume := m.find(volumeID)
	if volume == nil {
		return errUnmounted
	}
	volume.mutex.Lock()
	defer volume.mutex.Unlock()
	if volume.gone {
		return errUnmounted
	}
	if volume.mount.isUnrecorded() {
		return errUnrecorded
	}
	payload, err := volume.mount.payload(contents)
	if err != nil {
		return err
	}
	digest := payload.Digest()
	if volume.mount.Digest.Equal(digest) {
		return nil
	}
	if err := m.grow(volume, payload); err != nil {
		return err
	}
	return m.write(volume, payload, digest)
}

// write replaces the files. The record says nothing of them meanwhile: a process that
// is killed must not leave a record of other files than there are.
func (m *Mounts) write(volume *mounted, payload tmpfs.Payload, digest tmpfs.Digest) error {
	v := volume.mount
	v.Digest = nil
	m.save(v)
	if err := m.mounter.Replace(v.Target, payload); err != nil {
		m.save(volume.mount)
		return err
	}
	v.Digest = digest
	m.update(volume, v)
	m.logger.V(levelChange).Info("Files replaced", logVolumeID, v.VolumeID)
	return nil
}

// grow lets a volume hold the inodes of a payload, as far as the capacity allows.
func (m *Mounts) grow(volume *mounted, payload tmpfs.Payload) error {
	v := volume.mount
	inodes := payload.Inodes()
	if inodes <= v.Inodes {
		return nil
	}
	v.Inodes = inodes
	if err := m.reserve(v); err != nil {
		return err
	}
	defer m.release(v.VolumeID)
	if err := m.mounter.Grow(v.Target, inodes); err != nil {
		return err
	}
	m.update(volume, v)
	return nil
}

// attach mounts a volume with its first content, at a path to its target. It is recorded before it
// is there: a record without a mount is swept, a mount without a record could not
// be refreshed. A refresh that comes in between waits for the mount.
func (m *Mounts) attach(v mount, path string, contents []provider.RenderedFile) error {
	payload, err := v.payload(contents)
	if err != nil {
		return err
	}
	// By now it is known what templates write, and what the provider retains.
	v.Inodes = max(v.Inodes, payload.Inodes())
	if err := m.reserve(v); err != nil {
		return err
	}
	volume := newMounted(v)
	volume.mutex.Lock()
	defer volume.mutex.Unlock()
	m.mutex.Lock()
	m.volumes[v.VolumeID] = volume
	m.mutex.Unlock()
	m.save(v)
	if err := m.mounter.Create(path, v.Size, payload); err != nil {
		volume.gone = true
		m.drop(v.VolumeID)
		return err
	}
	v.Digest = payload.Digest()
	m.update(volume, v)
	return nil
}

// update changes what is known of a volume, whose mutex is held.
func (m *Mounts) update(volume *mounted, v mount) {
	m.mutex.Lock()
	volume.mount = v
	m.mutex.Unlock()
	m.save(v)
}

// save records a volume. No record is better than one that is not true any more: the
// next process finds the volume in the mount table.
func (m *Mounts) save(v mount) {
	text, err := json.Marshal(v)
	if err == nil {
		err = m.countRecord(v, len(text))
	}
	if err == nil {
		err = m.store.Save(mountKey(v.VolumeID), text)
	}
	if err != nil {
		m.logger.Error(err, "Mount not recorded; after a restart of the driver, the volume is adopted at its next republish", logVolumeID, v.VolumeID, "namespace", v.Pod.Namespace)
		m.forget(mountKey(v.VolumeID))
	}
}

// countRecord notes the size of a record, unless those of the namespace come to too much.
func (m *Mounts) countRecord(v mount, size int) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	sum := size
	for id, volume := range m.volumes {
		if id != v.VolumeID && volume.mount.Pod.Namespace == v.Pod.Namespace {
			sum += volume.recordBytes
		}
	}
	if err := limits.NamespaceMountBytes.Check(sum); err != nil {
		return fmt.Errorf("the records of the mounts of namespace %q: %w", v.Pod.Namespace, err)
	}
	if volume := m.volumes[v.VolumeID]; volume != nil {
		volume.recordBytes = size
	}
	return nil
}

// adopt takes over a volume that is mounted, as its attributes describe it now. It
// changes nothing for a volume whose record says the same.
func (m *Mounts) adopt(v mount) {
	volume := m.take(v)
	volume.mutex.Lock()
	defer volume.mutex.Unlock()
	known := volume.mount
	if volume.gone || known.describes(v) {
		return
	}
	v.Size, v.Inodes, v.Digest = known.Size, known.Inodes, known.Digest
	m.update(volume, v.measured())
}

// take returns the entry of a volume, and makes one if there is none.
func (m *Mounts) take(v mount) *mounted {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	volume := m.volumes[v.VolumeID]
	if volume == nil {
		volume = newMounted(mount{VolumeID: v.VolumeID, Target: v.Target})
		m.forgetAt(v.Target)
		m.volumes[v.VolumeID] = volume
	}
	return volume
}

// forgetAt drops a volume without a record, whose id is a guess. The mutex is held.
func (m *Mounts) forgetAt(target string) {
	for id, each := range m.volumes {
		if each.mount.isUnrecorded() && each.mount.Target == target {
			delete(m.volumes, id)
		}
	}
}

// remove unmounts a volume, at a path to its target. No content is written to it from then
// on.
func (m *Mounts) remove(volumeID, target, path string) error {
	volume := m.find(volumeID)
	if volume == nil {
		if err := tmpfs.Remove(path); err != nil {
			return err
		}
		m.mutex.Lock()
		defer m.mutex.Unlock()
		m.forgetAt(target)
		return nil
	}
	volume.mutex.Lock()
	defer volume.mutex.Unlock()
	released := m.watch(path)
	if err := tmpfs.Remove(path); err != nil {
		return err
	}
	volume.gone = true
	m.linger(released, volume.mount)
	m.drop(volumeID)
	return nil
}

func (m *Mounts) drop(volumeID string) {
	m.mutex.Lock()
	delete(m.volumes, volumeID)
	m.mutex.Unlock()
	m.forget(mountKey(volumeID))
}

func (m *Mounts) forget(key string) {
	if err := m.store.Delete(key); err != nil {
		m.logger.Error(err, "Record of a mount not deleted")
	}
}

func (m *Mounts) find(volumeID string) *mounted {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.volumes[volumeID]
}

// noteCall is for a call of the kubelet that wants a volume to be there.
func (m *Mounts) noteCall(volumeID string) {
	if volume := m.find(volumeID); volume != nil {
		volume.called.Store(true)
	}
}

// isPublished reports whether the last call for a volume had a fingerprint.
func (m *Mounts) isPublished(volumeID string, fingerprint uint64) bool {
	volume := m.find(volumeID)
	return volume != nil && volume.fingerprint.Load() == fingerprint
}

// published notes the fingerprint of a call for a volume.
func (m *Mounts) published(volumeID string, fingerprint uint64) {
	if volume := m.find(volumeID); volume != nil {
		volume.fingerprint.Store(fingerprint)
	}
}

// Pod tells whose volume it is, and the volume's name there.
func (m *Mounts) Pod(volumeID string) (apiserver.Volume, bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	volume := m.volumes[volumeID]
	if volume == nil {
		return apiserver.Volume{}, false
	}
	pod := volume.mount.Pod
	return apiserver.Volume{Namespace: pod.Namespace, Pod: pod.Name, PodUID: pod.UID, Name: volumeName(volume.mount.Target)}, pod.Name != ""
}

// all returns the volumes as they are now.
func (m *Mounts) all() []mount {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	all := make([]mount, 0, len(m.volumes))
	for _, volume := range m.volumes {
		all = append(all, volume.mount)
	}
	return all
}

// mountKey makes a key of a volume id, which may hold any characters.
func mountKey(volumeID string) string {
	sum := sha256.Sum256([]byte(volumeID))
	return mountPrefix + hex.EncodeToString(sum[:16])
}
