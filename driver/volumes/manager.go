// Package volumes keeps the one table of the volumes on the node, with one record each. It
// publishes, republishes and unpublishes them, counts their capacity, removes orphans, and
// takes over volumes that have no record.
//
// It never talks to Vault, which is the provider's part, and knows no message of CSI. It
// imports tmpfs, status, volume, the provider and its limits and recovery.
package volumes

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
)

// The keys of log lines.
const (
	logVolumeID  = "volumeID"
	logNamespace = "namespace"
	logReason    = "reason"
	logRecord    = "record"
	logVolumes   = "volumes"
)

// levelChange is the verbosity of a line for each change of a volume.
const levelChange = 2

// Store keeps records for the next process. See driver/checkpoint.
type Store interface {
	Save(key string, record []byte) error
	Delete(key string) error
	// Load returns the records whose keys start with prefix.
	Load(prefix string) (map[string][]byte, error)
}

// Provider fills volumes. See provider.Manager.
type Provider interface {
	Publish(ctx context.Context, request provider.Request, sink provider.Sink) (*provider.Volume, []provider.RenderedFile, error)
	TakeOver(request provider.Request, sink provider.Sink) *provider.Volume
	Restore(record []byte, sink provider.Sink) (*provider.Volume, error)
}

// Config is what a Manager works with.
type Config struct {
	Logger   klog.Logger
	Mounter  *tmpfs.Mounter
	Store    Store
	Provider Provider
	// KubeletRoot is the kubelet's --root-dir, an absolute clean path.
	KubeletRoot string
	// Capacity is for all volumes of the node and NamespaceQuota for those of one
	// namespace, in bytes; 0 for no limit.
	Capacity, NamespaceQuota int64
	// Refreshed is told the result of each refresh, and whether an operator has something
	// else to do about it than about the one before; nil for nobody.
	Refreshed func(v Volume, result error, isNews bool)
}

// Manager is the table of the volumes on the node. It may be used concurrently; calls that
// change one volume hold its Lock.
//
// Locks and their order: entry.operation, then Manager.mutex. The first keeps the changes
// of one volume apart and is held during their I/O; who only reads does not take it. The
// second is held for a short time. Neither is held during a call of the Provider, but for
// Volume.RetainedBytes, which waits for nothing.
type Manager struct {
	config Config

	mutex   sync.Mutex
	table   map[string]*entry // by volume id
	locked  map[string]bool   // by volume id
	freeing map[int]claim     // volumes that are unmounted and still in use, by watch
	watcher *tmpfs.ReleaseWatcher
}

// New returns a Manager without volumes. Restore fills it.
func New(config Config) *Manager {
	config.KubeletRoot = filepath.Clean(config.KubeletRoot)
	return &Manager{config: config, table: map[string]*entry{}, locked: map[string]bool{}, freeing: map[int]claim{}}
}

// entry is a volume in the table. It is the provider's Sink for the volume.
type entry struct {
	manager *Manager

	operation sync.Mutex
	// closed entries are unmounted, or replaced by another one. It belongs to operation.
	closed bool
	// volume is written with both mutexes, and read with either.
	volume Volume

	// secrets is nil while the volume waits for the kubelet's next call to be taken over.
	secrets atomic.Pointer[provider.Volume]

	// The rest belongs to Manager.mutex.

	// replaced are those of earlier mounts, which somebody has unmounted under running
	// containers: these use the credentials until the pod is gone.
	replaced []*provider.Volume
	// pending entries are about to be mounted. They count against the capacity.
	pending bool
	// requestHash is that of the kubelet's last call, 0 for none.
	requestHash uint64
	// called is false when the kubelet has not called since the last collection of orphans,
	// missed true when that has found the volume unmounted.
	called, missed bool
	// recordBytes and headerBytes are the sizes of its record, and of this package's part.
	recordBytes, headerBytes int
}

// Lock keeps two calls from working on one volume: the kubelet gives up on a call after two
// minutes, and may send the next while the first still runs. It reports false if the volume
// is locked.
func (m *Manager) Lock(volumeID string) (unlock func(), ok bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.locked[volumeID] {
		return nil, false
	}
	m.locked[volumeID] = true
	return func() {
		m.mutex.Lock()
		defer m.mutex.Unlock()
		delete(m.locked, volumeID)
	}, true
}

// Publish mounts a volume with what the provider renders. After an error, or a panic,
// nothing is left: the kubelet may not call again. The hash is for NoteCall.
func (m *Manager) Publish(ctx context.Context, v Volume, request provider.Request, hash uint64) error {
	e := &entry{manager: m, volume: v, pending: true, called: true, requestHash: hash}
	before, err := m.add(e) // a volume without capacity costs Vault nothing
	if err != nil {
		return err
	}
	mounted := false
	defer func() {
		if !mounted {
			m.abandon(e, before)
		}
	}()
	secrets, files, err := m.config.Provider.Publish(ctx, request, e)
	if err != nil {
		return err
	}
	e.secrets.Store(secrets)
	// The kubelet may have asked for the removal of the volume since.
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mount the volume: %w", err)
	}
	if err := e.mount(files); err != nil {
		return err
	}
	mounted = true
	if before != nil {
		m.mutex.Lock()
		e.replaced = append(slices.Clone(before.replaced), before.secrets.Load())
		m.mutex.Unlock()
	}
	if secrets != nil {
		secrets.Start()
	}
	return nil
}

// NoteCall is for a call of the kubelet that wants a volume to be there. It reports whether
// the call says the same as the last one for the volume.
func (m *Manager) NoteCall(volumeID string, hash uint64) (unchanged bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	e := m.table[volumeID]
	if e == nil {
		return false
	}
	e.called = true
	return hash != 0 && e.requestHash == hash
}

// Republish hands a mounted volume fresh tokens, and its files as the attributes describe
// them now. It takes over a volume that has no record. It neither waits for Vault nor fails.
func (m *Manager) Republish(v Volume, request provider.Request, hash uint64) {
	e := m.findOrAdd(v)
	e.redescribe(v)
	if secrets := e.secrets.Load(); secrets != nil {
		secrets.UpdateCredentials(request)
	} else if secrets = m.config.Provider.TakeOver(request, e); secrets != nil {
		e.secrets.Store(secrets)
		secrets.Start()
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	e.requestHash = hash
}

// Unpublish unmounts a volume and revokes its token in the background. It succeeds for a
// volume that is not there.
func (m *Manager) Unpublish(volumeID, target string) error {
	path, leave, err := m.openTarget(target)
	if err != nil {
		return err
	}
	defer leave()
	e := m.find(volumeID)
	if e == nil {
		if err := tmpfs.Remove(path); err != nil {
			return err
		}
		m.mutex.Lock()
		defer m.mutex.Unlock()
		m.forgetAt(target)
		return nil
	}
	if err := e.unmount(path); err != nil {
		return err
	}
	m.drop(e)
	return nil
}

// IsMounted reports whether a target is a volume.
func (m *Manager) IsMounted(target string) (bool, error) { return tmpfs.Exists(target) }

// Close ends the watches of unmounted volumes. Nothing is mounted or unmounted any more.
func (m *Manager) Close() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.watcher != nil {
		m.watcher.Close()
		m.watcher = nil
	}
}

// add puts an entry that is to be mounted into the table, if the capacity allows. It
// returns the entry of a mount that somebody has unmounted, which rests meanwhile.
func (m *Manager) add(e *entry) (before *entry, err error) {
	if before = m.find(e.volume.ID); before != nil {
		before.setClosed(true)
	}
	if err := m.admit(e, e.volume); err != nil {
		if before != nil {
			before.setClosed(false)
		}
		return nil, err
	}
	return before, nil
}

// abandon leaves nothing of an entry that was not mounted.
func (m *Manager) abandon(e, before *entry) {
	e.setClosed(true)
	m.closeSecrets(e)
	m.mutex.Lock()
	delete(m.table, e.volume.ID)
	if before != nil {
		m.table[e.volume.ID] = before
	}
	m.mutex.Unlock()
	m.deleteRecord(e.volume.ID)
	if before != nil {
		before.setClosed(false)
	}
}

// drop forgets an entry that is unmounted. The provider has saved that the token is to be
// revoked before the record goes: a process that is killed must not lose the token.
func (m *Manager) drop(e *entry) {
	e.setClosed(true)
	m.closeSecrets(e)
	m.mutex.Lock()
	delete(m.table, e.volume.ID)
	m.mutex.Unlock()
	m.deleteRecord(e.volume.ID)
}

func (m *Manager) closeSecrets(e *entry) {
	m.mutex.Lock()
	all := append(slices.Clone(e.replaced), e.secrets.Load())
	m.mutex.Unlock()
	for _, each := range all {
		if each != nil {
			each.Close()
		}
	}
}

func (m *Manager) find(volumeID string) *entry {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.table[volumeID]
}

// findOrAdd makes an entry of a mounted volume that has none. Its guessed id goes.
func (m *Manager) findOrAdd(v Volume) *entry {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	e := m.table[v.ID]
	if e == nil {
		e = &entry{manager: m, volume: Volume{ID: v.ID, Target: v.Target}, called: true}
		m.forgetAt(v.Target)
		m.table[v.ID] = e
	}
	return e
}

// forgetAt drops an entry without a record at a target: its id is a guess. The mutex is
// held.
func (m *Manager) forgetAt(target string) {
	for id, e := range m.table {
		if e.volume.isUnrecorded() && e.volume.Target == target {
			delete(m.table, id)
		}
	}
}

// all returns the entries that are mounted, as far as is known.
func (m *Manager) all() []*entry {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	all := make([]*entry, 0, len(m.table))
	for _, e := range m.table {
		if !e.pending {
			all = append(all, e)
		}
	}
	return all
}
