// Package provider turns what a volume asks for into files, and keeps them fresh:
// it opens a session with Vault, reads what the templates need, renders them,
// renews and rotates what ends, and closes the session when the volume is gone.
//
// It never touches the file system: where the files go is the driver's business.
package provider

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// The keys of log lines.
const (
	logVolumeID = "volumeID"
	logVolumes  = "volumeIDs"
	logPod      = "pod"
	logStack    = "stack"
)

// workers refresh volumes and tokens at a time, and workerShare of them those of one
// namespace. They mostly wait for Vault.
const workers, workerShare = 64, 16

// ProviderConfig is what a provider works with.
type ProviderConfig struct {
	Logger   klog.Logger
	Clients  *vault.ClientPool
	Renderer Renderer
	Files    Files
	Store    Store
	// Clock decides what is due.
	Clock clock.Clock
	// Boot tells how much time has gone by between two processes; nil for what the
	// clock says, which somebody may have set meanwhile.
	Boot Boot
	// Observer hears of what happens in the background; nil for nobody.
	Observer Observer
	// Sharing is ShareNothing if empty.
	Sharing Sharing
}

// Observer hears of what happens in the background. It may be called
// concurrently, and answers at once.
type Observer interface {
	// Refreshed hears of each look after a volume: why its files may have been older
	// than what Vault holds, and why they may be now; nil for no reason. SameKind tells
	// whether that is news.
	Refreshed(volumeID string, before, now error)
	// Revoked hears of each token that is done with: nil for one that Vault has
	// revoked, and otherwise why it ends with its TTL.
	Revoked(err error)
}

type nobody struct{}

func (nobody) Refreshed(string, error, error) {}
func (nobody) Revoked(error)                  {}

// Provider keeps each open volume fresh. It may be used concurrently.
type Provider struct {
	logger   klog.Logger
	clients  *vault.ClientPool
	renderer Renderer
	files    Files
	records  *records
	clock    clock.Clock
	observer Observer
	chance   random
	patience patience
	sharing  Sharing

	schedule    *schedule
	revocations *revocations

	// The order of the mutexes: this one, that of a shared session, that of a pod's own,
	// those of volumes and readings, those of the schedules. None is held during I/O, but
	// for those of checkpoints, which are taken first.
	mutex    sync.Mutex
	volumes  map[string]*volume
	sessions map[string]*session
}

// NewProvider returns a provider without volumes. Stop ends it.
func NewProvider(c ProviderConfig) *Provider {
	chance := rand.Float64
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	records := newRecords(c)
	return &Provider{
		logger: c.Logger, clients: c.Clients, renderer: c.Renderer, files: c.Files, clock: c.Clock,
		records:     records,
		observer:    c.Observer,
		chance:      chance,
		patience:    usualPatience,
		sharing:     c.Sharing,
		schedule:    startSchedule(c.Clock, workers, workerShare),
		revocations: startRevocations(c, records, chance),
		volumes:     map[string]*volume{},
		sessions:    map[string]*session{},
	}
}

// Stop lets what runs in the background finish and leaves the volumes to the next
// process; a credential that Vault has just made would be lost otherwise. Then it
// revokes what waits for it. All takes at most the time that ctx leaves. Nothing
// may be opened or closed any more.
func (p *Provider) Stop(ctx context.Context) {
	defer p.clients.Close()
	p.schedule.stop(ctx)
	p.revocations.stop(ctx)
}

func (p *Provider) now() time.Time { return p.clock.Now() }

// Open logs in and renders the outputs of a volume, in order. After an error
// nothing is left here; of a pod whose other volumes are open, the token is, and
// leases that the next Open takes up. A second Open of a volume replaces the first
// and goes on with its token and leases; if it fails, the first stays.
func (p *Provider) Open(ctx context.Context, request Request) ([]RenderedFile, error) {
	before, v := p.find(request.VolumeID), newVolume(p, request)
	ctx = fairqueue.WithTenant(ctx, v.namespace)
	// What no secret can make good costs no login.
	previews, err := p.preview(ctx, request.Files, request.Size)
	if err != nil {
		return nil, err
	}
	if before != nil {
		v.checkpoint = before.checkpoint
	}
	p.join(v, request)
	v.inherit(ctx, before)
	var contents []RenderedFile
	// After a panic, too, nothing is left.
	err = recovery.Do(func() (err error) {
		contents, err = v.open(ctx, previews)
		return err
	})
	if err != nil {
		v.shut()
		p.leave(v, true)
		return nil, err
	}
	p.retire(before)
	v.save()
	due, serial := v.answers.next(), v.serial
	p.start(v, due)
	// A token that was replaced meanwhile has woken the volumes that were open then.
	if g, ok := v.session.current(); serial != 0 && (!ok || g.Serial != serial) {
		p.schedule.wake(v.task, p.now())
	}
	return contents, nil
}

// find is nil for a volume that is not open.
func (p *Provider) find(volumeID string) *volume {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.volumes[volumeID]
}

// start hands a volume to the schedule.
func (p *Provider) start(v *volume, at time.Time) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.volumes[v.id] = v
	v.isOpen.Store(true)
	if !at.IsZero() {
		p.schedule.wake(v.task, at)
	}
}

// Close gives up a volume. It does not wait for Vault, and does nothing for a
// volume that is not open.
func (p *Provider) Close(volumeID string) {
	p.mutex.Lock()
	v := p.volumes[volumeID]
	delete(p.volumes, volumeID)
	p.mutex.Unlock()
	if v == nil {
		return
	}
	p.schedule.remove(v.task)
	v.close()
	p.leave(v, false)
}
