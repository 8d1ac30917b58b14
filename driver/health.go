package driver

import (
	"context"
	"errors"

	state "github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/metrics"
)

// Alive is an error if the CSI socket does not answer. A process that has handed
// over is alive: it is there in case the next one ends.
func (p *Plugin) Alive(ctx context.Context) error {
	p.mutex.Lock()
	standby := p.standby
	p.mutex.Unlock()
	if standby {
		return nil
	}
	return probe(ctx, p.endpoint)
}

// Ready is an error while the kubelet does not know the driver, or this process
// has no charge of the volumes.
func (p *Plugin) Ready(context.Context) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	switch {
	case p.standby:
		return errors.New("another process of the driver has taken over")
	case p.charge == nil:
		return errors.New("the volumes of the node are not restored yet")
	case !p.registered:
		return errors.New("the kubelet has not registered the driver yet")
	}
	return nil
}

// AwaitReady waits until Ready is no error, or until ctx ends.
func (p *Plugin) AwaitReady(ctx context.Context) error {
	for {
		p.mutex.Lock()
		changed := p.changed
		p.mutex.Unlock()
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// Numbers sums the node up. Without charge of the volumes, all is zero.
func (p *Plugin) Numbers() metrics.NodeStats {
	p.mutex.Lock()
	charge := p.charge
	n := metrics.NodeStats{Capacity: p.config.VolumeCapacity, NamespaceQuota: p.config.namespaceCapacity(), Registered: p.registered && charge != nil}
	p.mutex.Unlock()
	if charge == nil {
		return n
	}
	n.Stats = charge.Reporter.Numbers()
	n.BreakerOpen = p.config.Vault.labels(n.BreakerOpen)
	n.VolumesMemory, n.LargestNamespace, n.Unrecorded = charge.Driver.mounts.space()
	n.CheckpointsMounted = charge.State.IsAttached()
	if usage, err := charge.State.Usage(); err == nil {
		n.CheckpointMemory = metrics.Memory{Used: usage.BytesUsed, Size: state.Records}
	}
	return n
}
