package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
)

// preparation is the part of a mount that is done while Vault answers.
type preparation struct {
	done   chan struct{}
	volume *tmpfs.Prepared
	err    error
}

// prepare begins with a mount. It is followed by one attach or discard, which wait
// for it.
func (d *Driver) prepare(mount mount) *preparation {
	p := &preparation{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.volume, p.err = d.mounts.mounter.Prepare(mount.Target, mount.Size)
	}()
	return p
}

// attach ends a mount, unless nobody waits for it any more: a caller that has given
// up may have asked for its removal already.
func (d *Driver) attach(ctx context.Context, mount mount, p *preparation, contents []provider.Rendered) error {
	<-p.done
	if p.err != nil {
		return p.err
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(fmt.Errorf("give up before the volume is mounted: %w", err), p.volume.Discard())
	}
	return d.mounts.attach(mount, p.volume, contents)
}

// discard leaves nothing of a mount. What went wrong with it is beside the point
// by then.
func (p *preparation) discard() error {
	<-p.done
	if p.err != nil {
		return nil
	}
	return p.volume.Discard()
}
