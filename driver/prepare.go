package driver

import (
	"context"
	"fmt"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/recovery"
)

// preparation is the part of a mount that is done while Vault answers.
type preparation struct {
	done   chan struct{}
	volume *tmpfs.Prepared
	err    error
	leave  func() // the directory around the target
}

// prepare begins with a mount. It is followed by attach, which waits for it, and in any
// case by discard.
func (d *Driver) prepare(mount mount) *preparation {
	p := &preparation{done: make(chan struct{}), leave: func() {}}
	go func() {
		defer close(p.done)
		p.err = recovery.Do(func() (err error) {
			path, leave, err := d.at(mount.Target)
			if err != nil {
				return err
			}
			p.leave = leave
			p.volume, err = d.mounts.mounter.Prepare(path, mount.Size, mount.Inodes)
			return err
		})
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
		return fmt.Errorf("give up before the volume is mounted: %w", err)
	}
	err := d.mounts.attach(mount, p.volume, contents)
	p.volume = nil // mounted, or discarded after an error
	return err
}

// discard leaves nothing of a mount that was not attached. What went wrong with it is
// beside the point by then.
func (p *preparation) discard() error {
	<-p.done
	defer p.leave()
	if p.err != nil || p.volume == nil {
		return nil
	}
	return p.volume.Discard()
}
