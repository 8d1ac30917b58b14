package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// Config is what a Manager works with.
type Config struct {
	Logger   klog.Logger
	Clients  *vault.ClientPool
	Renderer Renderer
	// Store keeps the tokens that wait for their revocation, and the shared sessions.
	Store Store
	// Clock decides what is due.
	Clock clock.Clock
	// Uptime is the time since the node booted, suspended time included
	// (CLOCK_BOOTTIME). Deadlines in records are in it. It is nil where Clock may stand in.
	Uptime func() time.Duration
	// Revoked is told the result of each token of a volume that is gone; nil for nobody.
	Revoked func(err error)
	// Sharing is ShareNothing if empty.
	Sharing Sharing
}

// Sink is the driver's side of one volume. The volume calls it from one goroutine at a
// time. Neither a method of Volume but Status nor one of Manager may be called from it.
type Sink interface {
	// Replace swaps all files of the volume at once, in the order of Request.Files.
	// ErrClosed says that the volume is not mounted (any more), which is no failure.
	Replace(files []RenderedFile) error
	// Save keeps the provider's half of the volume's record, as a whole or not at all. It
	// holds Vault tokens and secret values. It is called for the first time before Publish
	// returns, so that no token is lost if the process ends. The driver bounds the size.
	Save(record []byte) error
	// Refreshed hears of each refresh: why the files may have been older than what Vault
	// holds, and why they may be now; nil for no reason. See SameKind.
	Refreshed(before, now error)
}

// Manager makes volumes and keeps what they share: the tokens that wait for their
// revocation, and the sessions of shared logins. It may be used concurrently.
type Manager struct {
	provider *Provider

	mutex sync.Mutex
	sinks map[string]*managedSink
}

type managedSink struct {
	Sink

	started bool
}

// New returns a Manager without volumes. Shutdown ends it.
func New(c Config) *Manager {
	m := &Manager{sinks: map[string]*managedSink{}}
	old := ProviderConfig{
		Logger: c.Logger, Clients: c.Clients, Renderer: c.Renderer, Files: m, Store: c.Store, Clock: c.Clock, Sharing: c.Sharing,
		Observer: managedObserver{m, c.Revoked},
	}
	if c.Uptime != nil {
		old.Boot = uptime(c.Uptime)
	}
	m.provider = NewProvider(old)
	return m
}

type uptime func() time.Duration

func (u uptime) Up() (string, time.Duration) { return "boot", u() }

type managedObserver struct {
	manager *Manager
	revoked func(error)
}

func (o managedObserver) Refreshed(volumeID string, before, now error) {
	if sink := o.manager.sink(volumeID); sink != nil {
		sink.Refreshed(before, now)
	}
}

func (o managedObserver) Revoked(err error) {
	if o.revoked != nil {
		o.revoked(err)
	}
}

func (m *Manager) sink(volumeID string) *managedSink {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.sinks[volumeID]
}

// Replace implements Files.
func (m *Manager) Replace(volumeID string, contents []RenderedFile) error {
	sink := m.sink(volumeID)
	if sink == nil || !sink.started {
		return ErrClosed
	}
	return sink.Replace(contents)
}

// RestoreSessions takes over the revocations and shared sessions that the previous process
// left. It asks Vault nothing, and is called once, before anything else. If ctx ends
// before, its error is returned, and the records stay.
func (m *Manager) RestoreSessions(ctx context.Context) error {
	return m.provider.Resume(ctx, func(string) bool { return true })
}

// Restore returns a volume of the previous process by its half of the record. It asks
// Vault nothing. The volume is not refreshed before Start. After an error the driver
// deletes the record; TakeOver is for the volume then, at the kubelet's next call.
func (m *Manager) Restore(record []byte, sink Sink) (*Volume, error) {
	var kept struct{ VolumeID string }
	if json.Unmarshal(record, &kept) != nil || m.provider.find(kept.VolumeID) == nil {
		return nil, errors.New("restore the volume: the record is not valid")
	}
	return m.add(kept.VolumeID, sink), nil
}

// FinishRestore revokes the tokens of shared sessions that no restored volume uses.
func (m *Manager) FinishRestore() {
	for _, status := range m.provider.Volumes() {
		if m.sink(status.VolumeID) == nil {
			m.provider.Close(status.VolumeID)
		}
	}
}

// Publish logs in, reads and renders. It returns the files in the order of request.Files,
// with a volume that is not refreshed before Start. After an error, nothing is left
// behind.
func (m *Manager) Publish(ctx context.Context, request Request, sink Sink) (*Volume, []RenderedFile, error) {
	files, err := m.provider.Open(ctx, request)
	if err != nil {
		return nil, nil, err
	}
	v := m.add(request.VolumeID, sink)
	if err := sink.Save([]byte(fmt.Sprintf(`{"VolumeID":%q}`, request.VolumeID))); err != nil {
		m.provider.logger.Error(err, "Volume not saved", logVolumeID, request.VolumeID)
	}
	return v, files, nil
}

// TakeOver returns a volume that is mounted and has no record. It asks Vault nothing: after
// Start, the volume logs in and is refreshed within some seconds.
func (m *Manager) TakeOver(request Request, sink Sink) *Volume {
	v := m.add(request.VolumeID, sink)
	m.provider.Republish(request)
	return v
}

func (m *Manager) add(volumeID string, sink Sink) *Volume {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.sinks[volumeID] = &managedSink{Sink: sink}
	return &Volume{manager: m, id: volumeID}
}

// Stats sums the node up, given the status of each of its volumes.
func (m *Manager) Stats([]Status) Stats { return m.provider.Numbers() }

// Shutdown lets refreshes that run finish, and revokes what is due. The volumes stay for
// the next process. When ctx ends, so do requests in flight.
func (m *Manager) Shutdown(ctx context.Context) { m.provider.Stop(ctx) }

// Volume keeps the files of one volume fresh between Start and Close, or until the
// Manager is shut down. Its methods may be called concurrently; but for Close, none waits
// for Vault or the Sink.
type Volume struct {
	manager *Manager
	id      string
}

// Start begins to refresh the volume. The files of Publish are attached by then.
func (v *Volume) Start() {
	v.manager.mutex.Lock()
	defer v.manager.mutex.Unlock()
	if sink := v.manager.sinks[v.id]; sink != nil {
		sink.started = true
	}
}

// UpdateCredentials takes over what a republish brings: fresh tokens and certificates, and
// the files as the attributes say now. If these are others than before, they are written
// soon.
func (v *Volume) UpdateCredentials(request Request) { v.manager.provider.Republish(request) }

// Refresh has all static secrets read now.
func (v *Volume) Refresh() {
	if known := v.manager.provider.find(v.id); known != nil {
		known.mutex.Lock()
		known.ticks.again()
		known.mutex.Unlock()
		v.manager.provider.schedule.wake(known.task, v.manager.provider.now())
	}
}

// Close ends the volume, waits for a call of the Sink that is in progress, and revokes the
// Vault token in the background. It does not wait for Vault. The caller holds no lock that
// the Sink takes, and has unmounted the volume.
func (v *Volume) Close() {
	v.manager.provider.Close(v.id)
	v.manager.mutex.Lock()
	defer v.manager.mutex.Unlock()
	delete(v.manager.sinks, v.id)
}

// Status is a snapshot of the volume.
func (v *Volume) Status() Status {
	if known := v.manager.provider.find(v.id); known != nil {
		return known.status()
	}
	return Status{VolumeID: v.id}
}

// RetainedBytes is about how many bytes of memory the volume holds besides its files: what
// Vault answered, and the templates and certificates that it came with.
func (v *Volume) RetainedBytes() int64 { return v.manager.provider.RetainedBytes(v.id) }
