package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// refreshTimeout bounds one refresh, so that a Vault which takes requests and
// does not answer holds no worker for long.
const refreshTimeout = time.Minute

// refreshTask attends to what is due and returns when that is next.
func (v *volume) refreshTask(ctx context.Context) time.Time {
	own, cancel := context.WithTimeout(vault.Background(ctx), refreshTimeout)
	defer cancel()
	asked := v.takeTick()
	err := v.withToken(own, false, func(client *vault.Session, g grant) error {
		return v.update(own, client, g, asked)
	})
	defer v.save()
	if ctx.Err() != nil {
		// The volume closes, or the process ends: nobody is to hear of it.
		return time.Time{}
	}
	return v.finish(err)
}

// update does what is due, each answer by itself: a static secret that is gone
// must not keep credentials from being renewed.
func (v *volume) update(ctx context.Context, client *vault.Session, g grant, asked bool) error {
	var changes []change
	var failure error
	for _, each := range v.answers.inOrder() {
		if !v.wants(each, g, asked) {
			continue
		}
		before := *each
		changed, err := v.attend(ctx, client, g, each, failure)
		switch {
		case errors.Is(err, vault.ErrTokenGone), ctx.Err() != nil:
			return err
		case err != nil:
			each.postpone(longestFor(err), v.provider.now(), v.provider.chance)
			failure = first(failure, err)
		case changed:
			v.stale = true
			changes = append(changes, change{each, before})
		}
	}
	if !v.refresh.Never && v.showsToken() && v.shown != g.Serial {
		v.stale = true
	}
	if !v.stale || v.refresh.Never {
		return failure
	}
	return first(failure, v.rewrite(ctx, client, g, changes))
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
	return v.isForeign(each, g) && each.failures == 0 || asked && isStatic(each.query, each.said)
}

func (v *volume) isForeign(each *answer, g grant) bool {
	return each.isLeased() && each.token != g.Serial
}

// attend renews an answer's lease, or asks anew. Once Vault has not answered in
// this refresh, it is not asked again.
func (v *volume) attend(ctx context.Context, client *vault.Session, g grant, each *answer, failure error) (changed bool, err error) {
	if errors.Is(failure, ErrUnavailable) {
		return false, failure
	}
	if each.lease.Renewable && (v.refresh.Never || !v.isForeign(each, g)) {
		prolonged, err := v.renewLease(ctx, client, each)
		if prolonged || err != nil {
			return false, err
		}
	}
	if v.refresh.Never {
		each.due = time.Time{}
		return false, nil
	}
	said, err := ask(ctx, client, each.query)
	if err != nil {
		return false, err
	}
	return each.says(said, v.refresh, g.Serial, v.provider.now(), v.provider.chance), nil
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
	each.failures = 0
	each.plan(v.refresh, now, v.provider.chance)
	return true, nil
}

// change is an answer that templates can see the difference of.
type change struct {
	now    *answer
	before answer
}

// rewrite renders the answers and writes what they make. What was fetched is
// saved first: a credential that only a dead process knew would be lost.
func (v *volume) rewrite(ctx context.Context, client *vault.Session, g grant, changes []change) error {
	v.save()
	contents, err := v.render(ctx, client, g)
	if errors.Is(err, ErrData) || errors.Is(err, ErrTemplate) {
		// A static secret that no longer fits its template keeps its old value, so
		// that new credentials are written all the same.
		if v.takeBack(changes, err) {
			if again, retried := v.render(ctx, client, g); retried == nil {
				return first(v.replace(again), err)
			}
		}
	}
	if err != nil {
		return err
	}
	return v.replace(contents)
}

func (v *volume) takeBack(changes []change, err error) bool {
	some := false
	for _, c := range changes {
		if !isStatic(c.now.query, c.now.said) {
			continue
		}
		c.now.said = c.before.said
		c.now.failures = c.before.failures
		c.now.postpone(longestFor(err), v.provider.now(), v.provider.chance)
		some = true
	}
	return some
}

func (v *volume) replace(contents [][]byte) error {
	sum := digest(contents)
	if sum != v.written {
		if err := v.provider.files.Replace(v.id, contents); err != nil {
			return fmt.Errorf("write the refreshed files: %w", err)
		}
	}
	v.written, v.stale = sum, false
	return nil
}

// showsToken tells whether a file holds the Vault token.
func (v *volume) showsToken() bool {
	for _, output := range v.outputs {
		if output.Token {
			return true
		}
	}
	return false
}

// finish notes how a refresh went and returns when the next is due.
func (v *volume) finish(err error) time.Time {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	now := v.provider.now()
	next := v.answers.next()
	v.leases = len(v.answers.leased())
	if err == nil {
		v.refreshed = now
		if v.trouble.over() {
			v.provider.logger.Info("Volume refreshed again", logVolumeID, v.id, logPod, v.pod)
		}
		return next
	}
	if v.trouble.add(err, now, time.Time{}, v.provider.chance) {
		v.provider.logger.Error(err, "Volume not refreshed; its files stay as they are", logVolumeID, v.id, logPod, v.pod)
	}
	if v.stale || next.IsZero() || !next.After(now) {
		// Answers that could not be asked for, or not be written.
		return earlier(after(next, now), v.trouble.retry)
	}
	return next
}

// after is a time if it is still to come.
func after(t, now time.Time) time.Time {
	if t.After(now) {
		return t
	}
	return time.Time{}
}
