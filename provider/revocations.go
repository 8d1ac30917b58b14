package provider

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// maxRevocations bounds what waits while Vault is away.
	maxRevocations = 4096
	// revokeTimeout is for one token.
	revokeTimeout = 10 * time.Second
)

// revocations gives tokens back to Vault in the background, one at a time: the
// deletion of a pod waits for no Vault, and an emptied node is no burst for it.
// What waits is stored, so that it outlives the process; and it is tried until
// Vault has ended the token by itself.
type revocations struct {
	logger   klog.Logger
	servers  *vault.Servers
	store    Store
	clock    clock.Clock
	timeline timeline
	observer Observer
	chance   random
	schedule *schedule

	mutex   sync.Mutex
	waiting int
}

func startRevocations(c Config, chance random) *revocations {
	return &revocations{logger: c.Logger, servers: c.Servers, store: c.Store, clock: c.Clock, timeline: newTimeline(c), observer: c.Observer, chance: chance, schedule: startSchedule(c.Clock, 1)}
}

// stop tries once more what is due, until ctx ends. The rest is the next
// process's.
func (r *revocations) stop(ctx context.Context) { r.schedule.drain(ctx) }

// resume takes over what an earlier process left.
func (r *revocations) resume(ctx context.Context, store Store) error {
	records, err := store.Load(revocationPrefix)
	if err != nil {
		return err
	}
	for key, text := range records {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("take over the tokens to revoke: %w", err)
		}
		var left revocationRecord
		if err := decode(text, &left); err != nil {
			r.logger.Error(err, "Vault token not revoked, its record is not readable; it ends with its TTL", "record", key)
			r.forget(key)
			continue
		}
		r.timeline.takeOver(&left)
		r.enqueue(key, left.Means, left.Grant)
	}
	return nil
}

// add has a token revoked.
func (r *revocations) add(with means, g grant) {
	if g.Token.Batch || g.Term.expired(r.clock.Now()) {
		return // Vault revokes no batch token
	}
	key := revocationPrefix + hash([]byte(g.Token.Secret))
	with.Login = Login{} // not needed any more
	left := revocationRecord{Version: stateVersion, Means: with, Grant: g}
	r.timeline.stamp(&left)
	if err := r.store.Save(key, encode(&left)); err != nil {
		r.logger.Error(err, "Revocation not saved; if the driver ends before Vault has answered, the token ends with its TTL")
	}
	r.enqueue(key, with, g)
}

func (r *revocations) enqueue(key string, with means, g grant) {
	r.mutex.Lock()
	full := r.waiting >= maxRevocations
	if !full {
		r.waiting++
	}
	r.mutex.Unlock()
	if full {
		r.logger.Error(nil, "Vault token not revoked, too many wait for it; it ends with its TTL", "waiting", maxRevocations)
		r.forget(key)
		return
	}
	var trouble trouble
	r.schedule.wake(newTask(guarded(r.logger, r.clock, func(ctx context.Context) time.Time {
		err := r.revoke(ctx, with, g)
		now := r.clock.Now()
		switch {
		case ctx.Err() != nil:
			return time.Time{}
		case err == nil:
		case errors.Is(err, ErrUnavailable) && !g.Term.expired(now):
			if trouble.add(err, now, time.Time{}, r.chance) {
				r.logger.Error(err, "Vault token not revoked yet; it is tried again until it ends by itself")
			}
			return trouble.retry
		default:
			r.logger.Error(err, "Vault token not revoked; it ends with its TTL")
		}
		r.observer.Revoked(err)
		r.finish(key)
		return time.Time{}
	})), r.clock.Now())
}

func (r *revocations) revoke(ctx context.Context, with means, g grant) error {
	ctx, cancel := context.WithTimeout(vault.Background(ctx), revokeTimeout)
	defer cancel()
	session, err := r.servers.Resume(ctx, with.Endpoint, with.Options, g.Token)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := session.Revoke(ctx); !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	return nil // it had ended
}

// count is how many tokens wait.
func (r *revocations) count() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.waiting
}

func (r *revocations) finish(key string) {
	r.mutex.Lock()
	r.waiting--
	r.mutex.Unlock()
	r.forget(key)
}

func (r *revocations) forget(key string) {
	if err := r.store.Delete(key); err != nil {
		r.logger.Error(err, "Record of a revocation not deleted")
	}
}
