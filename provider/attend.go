package provider

import (
	"context"
	"errors"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// patience is how long the background waits for Vault.
type patience struct {
	// refresh bounds one refresh, so that a Vault which takes requests and does not
	// answer holds no worker for long; fetch, the part of it before the files are
	// written. The files of candidates get half of what is left, so that there is time
	// to write those of the accepted values.
	refresh, fetch time.Duration
	// ask is for one secret: a secrets engine that hangs must not take the others'
	// time. It is the default of client-timeout.
	ask time.Duration
}

var usualPatience = patience{refresh: 90 * time.Second, fetch: time.Minute, ask: 30 * time.Second}

// attend renews an answer's lease, or asks anew.
func (v *volume) attend(ctx context.Context, a *access, each *answer) (changed bool, err error) {
	if each.lease.Renewable && (v.refresh.Disabled || !v.isForeign(each, a.grant)) {
		prolonged, err := v.renewLease(ctx, a.client, each)
		if prolonged || err != nil {
			return false, err
		}
	}
	if v.refresh.Disabled {
		each.due = time.Time{}
		return false, nil
	}
	said, err := v.askInTime(ctx, a, each)
	if err != nil {
		if v.isForeign(each, a.grant) {
			v.keepLease(ctx, a.client, each)
		}
		return false, each.conceal(err)
	}
	return each.says(said, v.refresh, v.provider.now(), v.provider.chance), nil
}

func (v *volume) askInTime(ctx context.Context, a *access, each *answer) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, v.provider.patience.ask)
	defer cancel()
	return a.ask(ctx, each)
}

// renewTimeout is for one renewal: a lease may be short.
const renewTimeout = 10 * time.Second

// renewLease reports false for a lease that Vault does not know any more.
func (v *volume) renewLease(ctx context.Context, client *vault.Client, each *answer) (prolonged bool, err error) {
	if known, err := v.prolong(ctx, client, each); !known {
		return false, err
	}
	each.trouble = trouble{}
	each.plan(v.refresh, v.provider.now(), v.provider.chance)
	return true, nil
}

// keepLease has a lease of a token that was replaced go on, where Vault makes nothing
// in its place: it is good for as long as the old token is, which is up to an hour, and
// Vault lets any token with the policy renew it. It does so only where there is need,
// as the next attempt may be soon.
func (v *volume) keepLease(ctx context.Context, client *vault.Client, each *answer) {
	left := each.lease.Expires.Sub(v.provider.now())
	if each.lease.Renewable && left < each.lease.Full*2/3 {
		// Why not is of less interest than why there is no new one.
		_, _ = v.prolong(ctx, client, each)
	}
}

// prolong reports false for a lease that Vault does not know any more.
func (v *volume) prolong(ctx context.Context, client *vault.Client, each *answer) (known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	now := v.provider.now() // the lease begins before the answer comes
	renewed, err := client.RenewLease(ctx, each.said.Secret.LeaseID, each.lease.Full)
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
	return true, nil
}
