package provider

import (
	"context"
	"errors"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// refreshTimeout bounds one refresh, so that a Vault which takes requests and
// does not answer holds no worker for long.
const refreshTimeout = time.Minute

// refreshTask attends to what is due and returns when that is next.
func (v *volume) refreshTask(ctx context.Context) time.Time {
	if v.takeTurn(ctx) != nil {
		return v.provider.now().Add(firstBackoff)
	}
	defer v.endTurn()
	own, cancel := context.WithTimeout(vault.Background(ctx), refreshTimeout)
	defer cancel()
	asked := v.takeTick()
	a := v.newAccess(false, v.refresh.Interval)
	if asked {
		a.age = MinInterval
	}
	err := a.run(own, func() error { return v.update(own, a, asked) })
	defer v.save()
	if ctx.Err() != nil || errors.Is(err, ErrClosed) {
		// The volume closes, or is about to be mounted, or the process ends: nobody is
		// to hear of it.
		return v.provider.now().Add(firstBackoff)
	}
	if asked && err != nil {
		v.tickAgain() // what was asked for may not have been looked at
	}
	return v.finish(err)
}

// update does what is due, each answer by itself: a static secret that is gone
// must not keep credentials from being renewed. Why one could not be had is noted
// with the answer; the error is of what concerns the whole volume.
func (v *volume) update(ctx context.Context, a *access, asked bool) error {
	var changes []change
	var away, lacking error
	for _, each := range v.answers.inOrder() {
		if !v.wants(each, a.grant, asked) {
			continue
		}
		before := *each
		changed, err := false, away
		if away == nil {
			changed, err = v.attend(ctx, a, each)
		}
		switch {
		case errors.Is(err, vault.ErrTokenGone), ctx.Err() != nil:
			return err
		case errors.As(err, new(*tokenError)):
			lacking = err
		case err != nil:
			each.postpone(err, v.provider.now(), v.provider.chance)
		case changed:
			v.stale = true
			changes = append(changes, change{each, before})
		}
		if errors.Is(err, ErrUnavailable) {
			away = err // the others need not wait for Vault as well
		}
	}
	if v.refresh.Never {
		return lacking
	}
	if v.showsToken() && v.shown != a.grant.Serial {
		v.stale = true
	}
	if !v.stale {
		return lacking
	}
	return first(v.rewrite(ctx, a, changes), lacking)
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
	if v.refresh.Never {
		return false
	}
	return v.isForeign(each, g) && each.trouble.err == nil || asked && isStatic(each.query, each.said)
}

func (v *volume) isForeign(each *answer, g grant) bool {
	return each.isLeased() && each.token != g.Serial
}

// attend renews an answer's lease, or asks anew.
func (v *volume) attend(ctx context.Context, a *access, each *answer) (changed bool, err error) {
	if each.lease.Renewable && (v.refresh.Never || !v.isForeign(each, a.grant)) {
		prolonged, err := v.renewLease(ctx, a.client, each)
		if prolonged || err != nil {
			return false, err
		}
	}
	if v.refresh.Never {
		each.due = time.Time{}
		return false, nil
	}
	said, err := a.ask(ctx, each)
	if err != nil {
		return false, each.conceal(err)
	}
	return each.says(said, v.refresh, v.provider.now(), v.provider.chance), nil
}

// renewTimeout is for one renewal: a lease may be short.
const renewTimeout = 10 * time.Second

// renewLease reports false for a lease that Vault does not know any more.
func (v *volume) renewLease(ctx context.Context, client *vault.Session, each *answer) (prolonged bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	renewed, err := client.RenewLease(ctx, each.said.Secret.LeaseID, each.lease.Full)
	now := v.provider.now()
	switch {
	case err == nil:
		each.lease = each.lease.prolonged(now, time.Duration(renewed.LeaseDuration)*time.Second, renewed.Renewable)
	case errors.Is(err, vault.ErrTokenGone):
		return false, err
	case errors.Is(err, vault.ErrDenied):
		// A role may withhold the policy "default", which allows renewals.
		each.lease.Renewable = false
	case errors.Is(err, ErrRefused):
		each.lease.Renewable = false
		return false, nil
	default:
		return false, err
	}
	each.trouble = trouble{}
	each.plan(v.refresh, now, v.provider.chance)
	return true, nil
}

// finish notes how a refresh went and returns when the next is due.
func (v *volume) finish(err error) time.Time {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	now := v.provider.now()
	v.leases, v.plan = len(v.answers.leased()), v.answers.plan()
	v.note(first(err, v.answers.failure()), now)
	if err == nil {
		v.trouble.over()
		return v.answers.next()
	}
	v.trouble.add(err, now, time.Time{}, v.provider.chance)
	// What is overdue was not attended to, and waits for the next attempt; what is due
	// before that may not lack what it lacked.
	return earlier(v.answers.nextAfter(now), v.trouble.retry)
}

// note logs where trouble begins and where it ends. The mutex is held.
func (v *volume) note(failure error, now time.Time) {
	v.provider.observer.Refreshed(v.id, v.failure, failure)
	switch {
	case failure == nil:
		v.refreshed = now
		if v.failure != nil {
			v.provider.logger.Info("Volume refreshed again", logVolumeID, v.id, logPod, v.pod)
		}
	case v.failure == nil:
		v.provider.logger.Error(failure, "Volume not refreshed; its files stay as they are", logVolumeID, v.id, logPod, v.pod)
	}
	v.failure = failure
}
