package volumes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Volume is what a volume is besides the content of its files.
type Volume struct {
	ID, Target string
	UID, GID   int
	Files      []File
	Pod        Pod
	// Size is in bytes, and Inodes how many the volume may hold.
	Size   int64
	Inodes int
	// IsStatic volumes are not refreshed, as their attributes say.
	IsStatic bool
	// Written describes the files that were written last. It is empty while they are
	// replaced.
	Written tmpfs.Digest `json:",omitempty"`
}

// File is a file that the attributes name. Perms are permission bits.
type File struct {
	Path  string
	Perms uint32
}

// Pod is whose volume it is.
type Pod struct{ Namespace, Name, UID string }

// Name is the volume's name in its pod: targets look like
// <root>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount.
func (v Volume) Name() string { return NameOf(v.Target) }

// NameOf is the name of the volume at a target.
func NameOf(target string) string { return filepath.Base(filepath.Dir(target)) }

// isUnrecorded is a volume of which only the path is known.
func (v Volume) isUnrecorded() bool { return len(v.Files) == 0 }

// describes reports whether other says the same of the volume's files.
func (v Volume) describes(other Volume) bool {
	return v.Target == other.Target && v.UID == other.UID && v.GID == other.GID && v.Pod == other.Pod && v.IsStatic == other.IsStatic && slices.Equal(v.Files, other.Files)
}

// measured asks the kernel for the size of a volume whose record does not hold it.
func (v Volume) measured() Volume {
	if v.Size > 0 && v.Inodes > 0 {
		return v
	}
	if usage, err := tmpfs.ReadUsage(v.Target); err == nil {
		v.Size, v.Inodes = usage.BytesTotal, int(usage.InodesTotal)
	}
	return v
}

// A record is a line of JSON, the header, which is this package's half, and the provider's
// half as it comes. The header alone is a record as well.
const recordPrefix = "mount-"

// recordKey makes a key of a volume id, which may hold any characters.
func recordKey(volumeID string) string {
	sum := sha256.Sum256([]byte(volumeID))
	return recordPrefix + hex.EncodeToString(sum[:16])
}

// saveHeader changes this package's half of the record. The other half is read again: it
// holds secrets, of up to megabytes. The entry's operation is held.
func (e *entry) saveHeader(v Volume) {
	key := recordKey(v.ID)
	records, err := e.manager.config.Store.Load(key)
	if err == nil {
		_, half, _ := bytes.Cut(records[key], []byte("\n"))
		err = e.manager.saveRecord(e, v, half)
	}
	if err != nil {
		e.manager.config.Logger.Error(err, "Volume not saved; after a restart of the driver, it logs in again at its next republish", logVolumeID, v.ID, logNamespace, v.Pod.Namespace)
	}
}

// saveRecord saves both halves, or the header alone if they are too large. No record is
// better than one that is not true any more: the next process finds the volume in the mount
// table.
func (m *Manager) saveRecord(e *entry, v Volume, half []byte) error {
	header, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the record of the volume: %w", err)
	}
	for _, text := range [][]byte{slices.Concat(header, []byte("\n"), half), header} {
		saved := m.countRecord(e, len(text), len(header))
		if saved == nil {
			saved = m.config.Store.Save(recordKey(v.ID), text)
		}
		if saved == nil {
			return err
		}
		err = errors.Join(err, saved)
	}
	m.deleteRecord(v.ID)
	return err
}

// countRecord notes the size of a record, unless those of the namespace come to too much.
func (m *Manager) countRecord(e *entry, size, header int) error {
	if err := limits.CheckpointBytes.Check(size); err != nil {
		return err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	sum, headers := size, header
	for _, other := range m.table {
		if other != e && other.volume.Pod.Namespace == e.volume.Pod.Namespace {
			sum, headers = sum+other.recordBytes, headers+other.headerBytes
		}
	}
	err := limits.NamespaceMountBytes.Check(headers)
	if err == nil && size > header {
		err = limits.NamespaceCheckpointBytes.Check(sum)
	}
	if err != nil {
		return fmt.Errorf("the records of namespace %q: %w", e.volume.Pod.Namespace, err)
	}
	e.recordBytes, e.headerBytes = size, header
	return nil
}

func (m *Manager) deleteRecord(volumeID string) { m.deleteRecordAt(recordKey(volumeID)) }

func (m *Manager) deleteRecordAt(key string) {
	if err := m.config.Store.Delete(key); err != nil {
		m.config.Logger.Error(err, "Record not deleted", logRecord, key)
	}
}

// Restore continues with the volumes that the previous process has left, and finds those
// that are mounted and have no record. It takes time in proportion to the records and the
// mount table, and asks Vault nothing. It is called once, before anything else.
func (m *Manager) Restore(ctx context.Context) error {
	records, err := m.config.Store.Load(recordPrefix)
	if err != nil {
		return fmt.Errorf("read the records of the volumes: %w", err)
	}
	for key, text := range records {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("restore the volumes: %w", err)
		}
		delete(records, key) // the text is needed once
		m.restoreOne(key, text)
	}
	m.findUnrecorded()
	m.config.Logger.Info("Volumes restored", logVolumes, len(m.table))
	for _, e := range m.all() {
		if secrets := e.secrets.Load(); secrets != nil {
			secrets.Start()
		}
	}
	return nil
}

func (m *Manager) restoreOne(key string, text []byte) {
	header, half, _ := bytes.Cut(text, []byte("\n"))
	var v Volume
	if json.Unmarshal(header, &v) != nil || v.ID == "" || v.Target == "" || recordKey(v.ID) != key {
		m.config.Logger.Error(nil, "Record is not valid and is deleted; the volume is taken over at its next republish", logRecord, key)
		m.deleteRecordAt(key)
		return
	}
	e := &entry{manager: m, volume: v.measured(), called: true, recordBytes: len(text), headerBytes: len(header)}
	if len(half) > 0 {
		secrets, err := m.config.Provider.Restore(half, e)
		if err != nil {
			m.config.Logger.Error(err, "Record is not valid; the volume logs in again at its next republish", logVolumeID, v.ID)
		}
		e.secrets.Store(secrets)
	}
	// In doubt, it is mounted.
	if mounted, err := m.IsMounted(v.Target); err == nil && !mounted {
		m.drop(e)
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.table[v.ID] = e
}

// findUnrecorded adds the volumes below the kubelet's directory that are mounted and have
// no record: it was lost, or the state was full. They count against the capacity, and are
// taken over at the kubelet's next call. A mount table that cannot be read costs no more
// than that.
func (m *Manager) findUnrecorded() {
	pods := m.podsDirectory()
	// The root itself may be a link, which the mount table does not show.
	real, err := filepath.EvalSymlinks(pods)
	if err != nil || m.config.Mounter == nil {
		return // there is no pod
	}
	found, err := m.config.Mounter.Mounted(real)
	if err != nil {
		m.config.Logger.Error(err, "Volumes without a record are not known; they do not count against the capacity until the kubelet's next call for them")
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	recorded, count := map[string]bool{}, 0
	for _, e := range m.table {
		recorded[e.volume.Target] = true
	}
	for _, mountPoint := range found {
		v, ok := unrecordedAt(pods, strings.TrimPrefix(mountPoint, real+"/"))
		if ok && !recorded[v.Target] {
			m.table[v.ID] = &entry{manager: m, volume: v.measured(), called: true}
			count++
		}
	}
	if count > 0 {
		m.config.Logger.Info("Volumes are mounted that have no record; they are taken over at the kubelet's next call", logVolumes, count)
	}
}

// unrecordedAt is what the path of a volume below the kubelet's directory of pods tells:
// <pod UID>/volumes/kubernetes.io~csi/<name>/mount.
func unrecordedAt(pods, path string) (Volume, bool) {
	parts := strings.Split(path, "/")
	if len(parts) != 5 || parts[1] != "volumes" || parts[2] != "kubernetes.io~csi" || parts[4] != "mount" {
		return Volume{}, false
	}
	return Volume{ID: inlineVolumeID(parts[0], parts[3]), Target: filepath.Join(pods, path), Pod: Pod{UID: parts[0]}}, true
}

// inlineVolumeID is the kubelet's name for an inline volume (makeVolumeHandle in its
// csi_mounter.go). Where it is not, the target path still tells.
func inlineVolumeID(podUID, name string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(podUID+name)))
}
