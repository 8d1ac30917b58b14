package driver

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
)

// Charge is the care of a node's volumes. Of all processes of the driver, one has
// it at a time.
type Charge struct {
	Driver   *Driver
	Reporter Reporter
	State    State
	// Close gives the charge up. What runs in the background ends within ctx. If
	// nobody is going to take over, it leaves nothing on the node that it need not.
	Close func(ctx context.Context, takenOver bool) error
}

// Reporter tells how the sessions of volumes fare. It may be called concurrently.
type Reporter interface {
	Volumes() []provider.Status
	Numbers() provider.Stats
}

// State is what the driver keeps of its volumes for the next process. It may be
// called concurrently.
type State interface {
	Usage() (tmpfs.Usage, error)
	// IsAttached reports whether the next process finds it.
	IsAttached() bool
}

// Opener takes charge of the node's volumes, and asks no Vault for that. It calls locked
// when no other process has them, and restores them after that. While another process has
// them it waits for some seconds; the error is state.ErrHeld then.
type Opener func(ctx context.Context, locked func() error) (*Charge, error)

// Observer hears of each call of the kubelet when it is answered. It may be called
// concurrently, and answers at once.
type Observer interface {
	// Called tells the method, the gRPC code and the time; first is true for a call
	// that is to make a volume which is not there yet.
	Called(method, code string, duration time.Duration, first bool)
}

// Plugin is the driver as the kubelet sees it: its sockets, its registration, and
// the CSI services. Those wait while the care of the volumes passes from one
// process to the next.
type Plugin struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer

	config   Config
	endpoint string
	open     Opener
	observer Observer

	mutex      sync.Mutex
	charge     *Charge       // nil while this process has not got it
	changed    chan struct{} // closed when that changes
	registered bool
	standby    bool // another process has taken over

	// previous is the process whose place this one took, nil for none. It belongs to
	// Run.
	previous *predecessor
}

// NewPlugin returns a plugin that serves CSI on the unix socket endpoint. It touches
// nothing until Run.
func NewPlugin(config Config, endpoint string, open Opener, observer Observer) (*Plugin, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.KubeletRoot = filepath.Clean(config.KubeletRoot)
	return &Plugin{config: config, endpoint: endpoint, open: open, observer: observer, changed: make(chan struct{})}, nil
}

// setCharge takes the care of the volumes over, or gives it up with nil.
func (p *Plugin) setCharge(charge *Charge) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.charge = charge
	p.tell()
}

// tell wakes those who wait for a change. The mutex is held.
func (p *Plugin) tell() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// current is nil while this process has no charge of the volumes.
func (p *Plugin) current() *Charge {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.charge
}

// chargeAfter is how long a call waits for the volumes. Then the kubelet shows the error,
// and calls again.
const chargeAfter = 30 * time.Second

// driver waits until this process has charge of the volumes: until the process before
// gives them up, and this one has restored them.
func (p *Plugin) driver(ctx context.Context) (*Driver, error) {
	late := time.NewTimer(chargeAfter)
	defer late.Stop()
	for {
		p.mutex.Lock()
		charge, changed := p.charge, p.changed
		p.mutex.Unlock()
		if charge != nil {
			return charge.Driver, nil
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, errNotRestored
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the driver to restore the volumes of the node: %w", ctx.Err())
		}
	}
}

// NodePublishVolume implements csi.NodeServer.
func (p *Plugin) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d, err := p.driver(ctx)
	if err != nil {
		return nil, err
	}
	return d.NodePublishVolume(ctx, request)
}

// NodeUnpublishVolume implements csi.NodeServer.
func (p *Plugin) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d, err := p.driver(ctx)
	if err != nil {
		return nil, err
	}
	return d.NodeUnpublishVolume(ctx, request)
}

// NodeGetVolumeStats implements csi.NodeServer.
func (p *Plugin) NodeGetVolumeStats(ctx context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	d, err := p.driver(ctx)
	if err != nil {
		return nil, err
	}
	return d.NodeGetVolumeStats(ctx, request)
}

func (p *Plugin) setRegistered(registered bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.registered = registered
	p.tell()
}

func (p *Plugin) isRegistered() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.registered
}

func (p *Plugin) setStandby(standby bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.standby = standby
}
