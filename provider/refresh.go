package provider

import (
	"context"
	"errors"
	"time"

	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// refreshTask attends to what is due and returns when that is next.
func (v *volume) refreshTask(ctx context.Context) time.Time {
	if v.takeTurn(ctx) != nil {
		return v.provider.now().Add(firstBackoff)
	}
	defer v.endTurn()
	own, cancel := context.WithTimeout(vault.WithBackground(ctx), v.provider.patience.refresh)
	defer cancel()
	v.takeOutputs()
	asked := v.takeTick()
	a := v.newAccess(false, v.refresh.StaticInterval)
	if asked {
		a.age = MinInterval
	}
	err := recovery.Do(func() error {
		return a.run(own, func() error { return v.update(own, a, asked) })
	})
	defer v.save()
	if ctx.Err() != nil || errors.Is(err, ErrClosed) {
		// The volume closes, or is about to be mounted, or the process ends: nobody is
		// to hear of it.
		return v.provider.now().Add(firstBackoff)
	}
	if errors.Is(err, errKept) && len(v.answers.leased()) == 0 {
		err = nil // it was written once, and there is nothing to keep alive
	}
	if asked && err != nil {
		v.tickAgain() // what was asked for may not have been looked at
	}
	return v.finish(err)
}

// update does what is due, and writes what that has changed. The error is of what
// concerns the whole volume.
func (v *volume) update(ctx context.Context, a *access, asked bool) error {
	lacking, err := v.fetch(ctx, a, asked)
	if err != nil {
		return err
	}
	if v.refresh.Disabled {
		return lacking
	}
	if v.showsToken() && v.shown != a.grant.Serial {
		v.stale = true
	}
	if !v.stale {
		return lacking
	}
	return first(v.rewrite(ctx, a), lacking)
}

// fetch attends to what is due, each answer by itself: a static secret that is gone
// must not keep credentials from being renewed, nor one secrets engine that fails
// others from being asked. (Where all of Vault is away, the circuit makes attempts
// cheap.) Why one could not be had is noted with the answer; lacking is why there is
// no token.
func (v *volume) fetch(ctx context.Context, a *access, asked bool) (lacking, err error) {
	asking, cancel := context.WithTimeout(ctx, v.provider.patience.fetch)
	defer cancel()
	for _, each := range v.answers.inTurn() {
		if !v.wants(each, a.grant, asked) {
			continue
		}
		if asking.Err() != nil {
			each.due = v.provider.now() // what was fetched is written first
			continue
		}
		changed, err := v.attend(asking, a, each)
		v.stale = v.stale || changed
		switch {
		case errors.Is(err, vault.ErrTokenGone):
			return nil, err
		case ctx.Err() != nil:
			return nil, first(err, ctx.Err())
		case errors.As(err, new(*tokenError)):
			lacking = err
		case err != nil:
			each.postpone(err, v.provider.now(), v.provider.chance)
		}
	}
	return lacking, nil
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// wants tells whether an answer is due: by itself, because its lease belongs to a
// token that was replaced, or because somebody asked for what is static.
func (v *volume) wants(each *answer, g grant, asked bool) bool {
	if each.isDue(v.provider.now()) {
		return true
	}
	if v.refresh.Disabled {
		return false
	}
	return v.isForeign(each, g) && each.trouble.err == nil || asked && isStatic(each.query, each.said)
}

func (v *volume) isForeign(each *answer, g grant) bool {
	return each.isLeased() && each.token != g.Serial
}

// finish notes how a refresh went and returns when the next is due.
func (v *volume) finish(err error) time.Time {
	now, failure := v.provider.now(), first(err, v.answers.failure())
	leases, plan := len(v.answers.leased()), v.answers.plan()
	v.mutex.Lock()
	before := v.failure
	v.leases, v.plan, v.failure = leases, plan, failure
	if failure == nil {
		v.refreshed = now
	}
	v.mutex.Unlock()
	v.tell(before, failure)
	if err == nil {
		v.trouble = trouble{}
		return v.answers.next()
	}
	v.trouble.add(err, now, time.Time{}, v.provider.chance)
	// What is overdue was not attended to, and waits for the next attempt; what is due
	// before that may not lack what it lacked.
	return earlier(v.answers.nextAfter(now), v.trouble.retry)
}

// tell logs where a failure begins, becomes another one, and ends. No mutex is held: the
// observer may ask for the status.
func (v *volume) tell(before, failure error) {
	v.provider.observer.Refreshed(v.id, before, failure)
	if SameKind(before, failure) {
		return
	}
	if failure == nil {
		v.provider.logger.Info("Volume refreshed again", logVolumeID, v.id, logPod, v.pod)
		return
	}
	logger := v.provider.logger
	var panicked *recovery.PanicError
	if errors.As(failure, &panicked) {
		logger = logger.WithValues(logStack, panicked.Stack)
	}
	logger.Error(failure, "Volume not refreshed; its files stay as they are", logVolumeID, v.id, logPod, v.pod)
}
