package provider

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// revokeTimeout is for one token.
	revokeTimeout = 10 * time.Second
	// revokers revoke tokens at a time, and revokerShare of them for one namespace.
	revokers, revokerShare = 32, 8
)

// revocations gives tokens back to Vault in the background: the deletion of a pod waits
// for no Vault. Those of one namespace at one address are given back one after the
// other, so that an emptied node is no burst for Vault, and no Vault or namespace waits
// for another. What waits is stored, so that it outlives the process; and it is tried
// until Vault has ended the token by itself.
type revocations struct {
	logger   klog.Logger
	clients  *vault.ClientPool
	records  *records
	clock    clock.Clock
	observer Observer
	chance   random
	schedule *schedule

	mutex sync.Mutex
	lanes map[laneKey]*revocationLane
	// keys are those of the records that wait, and counts how many by namespace.
	keys   map[string]bool
	counts map[string]int
}

type laneKey struct{ namespace, address string }

// revocationLane is what waits of one namespace at one address. The mutex of the
// revocations guards it.
type revocationLane struct {
	key     laneKey
	task    *task
	waiting []revocation
	trouble trouble
}

// revocation is a token that is to be revoked, and the key of its record.
type revocation struct {
	key   string
	means means
	grant grant
}

func startRevocations(c ProviderConfig, records *records, chance random) *revocations {
	return &revocations{
		logger: c.Logger, clients: c.Clients, records: records, clock: c.Clock, observer: c.Observer, chance: chance,
		schedule: startSchedule(c.Clock, revokers, revokerShare),
		lanes:    map[laneKey]*revocationLane{}, keys: map[string]bool{}, counts: map[string]int{},
	}
}

// stop tries once more what is due, until ctx ends. The rest is the next
// process's.
func (r *revocations) stop(ctx context.Context) { r.schedule.drain(ctx) }

// resume takes over what an earlier process left.
func (r *revocations) resume(ctx context.Context) error {
	return r.records.each(ctx, revocationPrefix, func() record { return &revocationRecord{} }, func(key string, content record) (string, bool) {
		left := content.(*revocationRecord)
		keep := r.reserve(left.Namespace, key)
		if keep {
			r.enqueue(left.Namespace, revocation{key, left.Means, left.Grant})
		}
		return left.Namespace, keep
	})
}

// add has a token of a namespace revoked.
func (r *revocations) add(namespace string, with means, g grant) {
	if g.Token.Batch || g.Term.expired(r.clock.Now()) {
		return // Vault revokes no batch token
	}
	key := revocationPrefix + hash([]byte(with.Endpoint.Address+" "+g.Token.Secret)) // two Vaults may name a token alike
	if !r.reserve(namespace, key) {
		return
	}
	with.Login = Login{} // not needed any more
	left := &revocationRecord{Version: stateVersion, Namespace: namespace, Means: with, Grant: g}
	_ = r.records.save(namespace, key, left) // it is tried all the same, and the error is logged
	r.enqueue(namespace, revocation{key, with, g})
}

// reserve counts a token, unless it waits already or too many do.
func (r *revocations) reserve(namespace, key string) bool {
	r.mutex.Lock()
	known, err := r.keys[key], limits.Revocations.Check(r.counts[namespace]+1)
	if !known && err == nil {
		r.keys[key] = true
		r.counts[namespace]++
	}
	r.mutex.Unlock()
	if !known && err != nil {
		r.logger.Error(err, "Vault token not revoked, too many tokens of its namespace wait; it ends with its TTL", "namespace", namespace)
		r.observer.Revoked(err)
	}
	return !known && err == nil
}

func (r *revocations) enqueue(namespace string, each revocation) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	key := laneKey{namespace, each.means.Endpoint.Address}
	lane := r.lanes[key]
	if lane == nil {
		lane = &revocationLane{key: key}
		lane.task = newTask(namespace, guarded(r.logger, r.clock, func(ctx context.Context) time.Time { return r.revokeNext(ctx, lane) }))
		r.lanes[key] = lane
	}
	lane.waiting = append(lane.waiting, each)
	if lane.trouble.err == nil {
		r.schedule.wake(lane.task, r.clock.Now())
	}
}

// revokeNext revokes the first token of a lane and returns when the next one is due. If
// that fails, another one is the first.
func (r *revocations) revokeNext(ctx context.Context, lane *revocationLane) time.Time {
	r.mutex.Lock()
	next := lane.waiting[0]
	lane.waiting = append(lane.waiting[1:], next)
	r.mutex.Unlock()
	err := r.revoke(ctx, next)
	switch {
	case ctx.Err() != nil:
		return time.Time{}
	case errors.Is(err, ErrUnavailable):
		return r.postpone(lane, err)
	}
	r.finish(lane, err, func(each revocation) bool { return each.key == next.key })
	r.mutex.Lock()
	defer r.mutex.Unlock()
	lane.trouble = trouble{}
	return r.nextLocked(lane)
}

// postpone has all of a lane wait for its Vault, and gives up the tokens that have ended
// meanwhile.
func (r *revocations) postpone(lane *revocationLane, err error) time.Time {
	now := r.clock.Now()
	r.mutex.Lock()
	news := lane.trouble.add(err, now, time.Time{}, r.chance)
	r.mutex.Unlock()
	if news {
		r.logger.Error(err, "Vault token not revoked yet; it is tried again until it ends by itself", "namespace", lane.key.namespace)
	}
	r.finish(lane, err, func(each revocation) bool { return each.grant.Term.expired(now) })
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.nextLocked(lane)
}

// nextLocked is when a lane is due. An empty one is forgotten.
func (r *revocations) nextLocked(lane *revocationLane) time.Time {
	if len(lane.waiting) == 0 {
		delete(r.lanes, lane.key)
		return time.Time{}
	}
	return later(r.clock.Now(), lane.trouble.retry)
}

func (r *revocations) revoke(ctx context.Context, each revocation) error {
	ctx, cancel := context.WithTimeout(vault.WithBackground(ctx), revokeTimeout)
	defer cancel()
	session, err := r.clients.Client(ctx, each.means.Endpoint, each.means.Options, each.grant.Token)
	if err != nil {
		return err
	}
	if err := session.Revoke(ctx); !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	return nil // it had ended
}

// count is how many tokens wait.
func (r *revocations) count() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.keys)
}

// finish gives up the tokens of a lane that isOver reports, which Vault has revoked if
// there is no error.
func (r *revocations) finish(lane *revocationLane, err error, isOver func(revocation) bool) {
	r.mutex.Lock()
	var over, left []revocation
	for _, each := range lane.waiting {
		if !isOver(each) {
			left = append(left, each)
			continue
		}
		over = append(over, each)
		delete(r.keys, each.key)
		if r.counts[lane.key.namespace]--; r.counts[lane.key.namespace] == 0 {
			delete(r.counts, lane.key.namespace)
		}
	}
	lane.waiting = left
	r.mutex.Unlock()
	for _, each := range over {
		if err != nil {
			r.logger.Error(err, "Vault token not revoked; it ends with its TTL", "namespace", lane.key.namespace)
		}
		r.observer.Revoked(err)
		r.records.forget(each.key)
	}
}
