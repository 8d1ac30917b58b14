package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/apiserver"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
)

// Store keeps records for the next process, see driver/state.
type Store interface {
	Save(key string, record []byte) error
	Delete(key string) error
	Load(prefix string) (map[string][]byte, error)
}

// Mounts are the volumes that are mounted on the node, each with what its files
// are besides their content. The provider hands it the content. It may be used
// concurrently.
type Mounts struct {
	logger  klog.Logger
	mounter *tmpfs.Mounter
	store   Store

	mutex   sync.Mutex
	volumes map[string]*mounted
	// reserved are the sizes of volumes that are about to be mounted.
	reserved map[string]int64
}

// mounted is a volume. Its mutex keeps a refresh and the removal apart.
type mounted struct {
	mutex  sync.Mutex
	gone   bool
	mount  mount
	missed atomic.Bool // a sweep has found it unmounted
	// fingerprint is that of the kubelet's last call for it that was of use, 0 for none.
	fingerprint atomic.Uint64
}

const mountPrefix = "mount-"

var errUnmounted = fmt.Errorf("the volume is not mounted any more: %w", provider.ErrClosed)

// NewMounts takes over what an earlier process has mounted.
func NewMounts(logger klog.Logger, mounter *tmpfs.Mounter, store Store) (*Mounts, error) {
	m := &Mounts{logger: logger, mounter: mounter, store: store, volumes: map[string]*mounted{}, reserved: map[string]int64{}}
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
		m.volumes[record.VolumeID] = &mounted{mount: record.measured()}
	}
	return m, nil
}

// Replace swaps the files of a volume; it implements provider.Files. Content that
// is there already is not written again.
func (m *Mounts) Replace(volumeID string, contents []provider.Rendered) error {
	volume := m.find(volumeID)
	if volume == nil {
		return errUnmounted
	}
	volume.mutex.Lock()
	defer volume.mutex.Unlock()
	if volume.gone {
		return errUnmounted
	}
	set, err := volume.mount.set(contents)
	if err != nil {
		return err
	}
	changed, err := m.mounter.Replace(volume.mount.Target, set)
	if changed {
		m.logger.V(levelChange).Info("Files replaced", logVolumeID, volumeID)
	}
	return err
}

// attach mounts a prepared volume with its first content. It is recorded before it
// is there: a record without a mount is swept, a mount without a record could not
// be refreshed.
func (m *Mounts) attach(v mount, prepared *tmpfs.Prepared, contents []provider.Rendered) error {
	set, err := v.set(contents)
	if err != nil {
		return errors.Join(err, prepared.Discard())
	}
	m.remember(v)
	if err := prepared.Attach(set); err != nil {
		m.drop(v.VolumeID)
		return err
	}
	return nil
}

// remember notes a volume that is mounted, or about to be.
func (m *Mounts) remember(v mount) {
	v = v.measured()
	text, err := json.Marshal(v)
	if err == nil {
		err = m.store.Save(mountKey(v.VolumeID), text)
	}
	if err != nil {
		m.logger.Error(err, "Mount not recorded; after a restart of the driver, the volume is adopted at its next republish", logVolumeID, v.VolumeID)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.volumes[v.VolumeID] = &mounted{mount: v}
}

// remove unmounts a volume. No content is written to it from then on.
func (m *Mounts) remove(volumeID, target string) error {
	volume := m.find(volumeID)
	if volume == nil {
		return tmpfs.Remove(target)
	}
	volume.mutex.Lock()
	defer volume.mutex.Unlock()
	if err := tmpfs.Remove(target); err != nil {
		return err
	}
	volume.gone = true
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
	volume := m.find(volumeID)
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
