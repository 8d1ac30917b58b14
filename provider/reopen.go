package provider

import (
	"context"
	"fmt"
)

// Where somebody has unmounted a volume, the kubelet's next call opens it while it is
// open already. The containers of the pod go on with the files of before until they
// start again, so what those hold must live on: the token, since the new volume is in
// the session before the old one leaves it, and the leases, which the new one takes
// over and renews.

// inherit leaves the leases of the volume before, nil for none, to the Open of this
// one. They are copies: until that has succeeded, the volume before goes on.
func (v *volume) inherit(ctx context.Context, before *volume) {
	if before == nil || before.session != v.session || before.takeTurn(ctx) != nil {
		return
	}
	defer before.endTurn()
	leased := answers{}
	for query, each := range before.answers.leased() {
		copied := *each
		copied.trouble, copied.misfit = trouble{}, trouble{} // the new one finds out by itself
		leased[query] = &copied
	}
	v.session.leaveOver(v.id, leased)
}

// retire ends the volume before, nil for none, and the fetch that may run for it: that
// would write old content into the new volume. The record is the new one's from now on.
func (p *Provider) retire(before *volume) {
	if before == nil {
		return
	}
	p.schedule.remove(before.task)
	// The turn is kept. The fetch ends soon, as its context has; the call's context must
	// not cut this short, since the fetch may be about to write.
	before.turn <- struct{}{}
	before.shut()
	p.leave(before, false)
}

func (v *volume) takeTurn(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a refresh of the volume: %w", ctx.Err())
	}
}

func (v *volume) endTurn() { <-v.turn }
