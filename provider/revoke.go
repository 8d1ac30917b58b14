package provider

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/vault"
)

const (
	// revokeTimeout is for one token.
	revokeTimeout = 10 * time.Second
	// revokeWorkers limits how many tokens are revoked at a time, and revokeShare those of
	// one namespace.
	revokeWorkers, revokeShare = 32, 8
)

// revocations revoke tokens in the background: the deletion of a pod waits for no Vault.
// Each namespace has a queue for each address, so no Vault and no namespace waits for
// another, and an emptied node is no burst. The queues are stored, and a token is tried
// until it expires.
type revocations struct {
	manager *Manager
	revoked func(err error)
	workers *fairqueue.Limiter
	running sync.WaitGroup

	mutex  sync.Mutex
	queues map[queueKey]*revocationQueue
	keys   map[string]bool // of the records
	counts map[string]int  // by namespace
}

type queueKey struct{ namespace, address string }

// revocationQueue has a goroutine while tokens wait. The mutex of the revocations guards
// waiting, and the goroutine owns retry.
type revocationQueue struct {
	key     queueKey
	waiting []revocation
	retry   retryState
}

// revocation is a token, and the key of its record.
type revocation struct {
	key    string
	config loginConfig
	token  issuedToken
}

func newRevocations(m *Manager, revoked func(err error)) *revocations {
	if revoked == nil {
		revoked = func(error) {}
	}
	return &revocations{
		manager: m, revoked: revoked, workers: fairqueue.NewWithShare(revokeWorkers, revokeShare),
		queues: map[queueKey]*revocationQueue{}, keys: map[string]bool{}, counts: map[string]int{},
	}
}

// restore takes over what the previous process left.
func (r *revocations) restore(ctx context.Context) error {
	return r.manager.records.load(ctx, RevocationPrefix, func(key string, text []byte) (namespace string, err error) {
		record := &revocationRecord{}
		if err := decode(text, record); err != nil {
			return "", err
		}
		each := revocation{key, record.Config, record.Token}
		if err := r.reserve(record.Namespace, key); err != nil {
			return "", err
		}
		r.enqueue(record.Namespace, each)
		return record.Namespace, nil
	})
}

// add lets a token of a namespace be revoked.
func (r *revocations) add(namespace string, config loginConfig, t issuedToken) {
	if t.Token.Batch || t.Lease.isExpired(r.manager.now()) {
		return // Vault revokes no batch token
	}
	config.Login = Credentials{} // not needed any more
	each := revocation{RevocationPrefix + hash(config.Endpoint.Address+" "+t.Token.Secret), config, t}
	if r.reserve(namespace, each.key) != nil {
		return
	}
	record := &revocationRecord{Version: recordVersion, Namespace: namespace, Config: config, Token: t}
	r.manager.records.save(namespace, each.key, encode(record)) // it is tried in any case
	r.enqueue(namespace, each)
}

var errWaits = errors.New("the token waits already")

// reserve counts a token, unless it waits already or too many do.
func (r *revocations) reserve(namespace, key string) error {
	r.mutex.Lock()
	isKnown, err := r.keys[key], limits.Revocations.Check(r.counts[namespace]+1)
	if !isKnown && err == nil {
		r.keys[key] = true
		r.counts[namespace]++
	}
	r.mutex.Unlock()
	if isKnown {
		return errWaits
	}
	if err != nil {
		r.manager.logger.Error(err, "Vault token not revoked, too many tokens of its namespace wait; it expires with its TTL", logNamespace, namespace)
		r.revoked(err)
	}
	return err
}

func (r *revocations) enqueue(namespace string, each revocation) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	key := queueKey{namespace, each.config.Endpoint.Address}
	queue := r.queues[key]
	if queue == nil {
		queue = &revocationQueue{key: key}
		r.queues[key] = queue
		r.running.Go(func() { r.run(queue) })
	}
	queue.waiting = append(queue.waiting, each)
}

// pending counts the tokens that wait.
func (r *revocations) pending() int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.keys)
}

// run revokes the tokens of a queue until it is empty. At a shutdown, it goes on with what
// is due.
func (r *revocations) run(queue *revocationQueue) {
	ctx := r.manager.tenantContext(queue.key.namespace)
	for {
		r.mutex.Lock()
		if len(queue.waiting) == 0 {
			delete(r.queues, queue.key)
			r.mutex.Unlock()
			return
		}
		next := queue.waiting[0]
		// If this one fails, another one is the first.
		queue.waiting = append(queue.waiting[1:], next)
		r.mutex.Unlock()
		if queue.retry.until > r.manager.now() {
			select {
			case <-r.manager.after(queue.retry.until):
			case <-r.manager.stopping.Done():
				return
			}
		}
		if r.workers.Acquire(ctx, queue.key.namespace, fairqueue.Background, 1) != nil {
			return
		}
		r.attempt(ctx, queue, next)
		r.workers.Release(queue.key.namespace, 1)
	}
}

func (r *revocations) attempt(ctx context.Context, queue *revocationQueue, next revocation) {
	err := recovery.Do(func() error { return r.revoke(ctx, next) })
	switch now := r.manager.now(); {
	case ctx.Err() != nil:
	case errors.Is(err, ErrUnavailable):
		if !SameKind(queue.retry.err, err) {
			r.manager.logger.Error(err, "Vault token not revoked yet; it is tried again until it expires", logNamespace, queue.key.namespace)
		}
		queue.retry.fail(err, now, 0, r.manager.jitter)
		r.finish(queue, err, func(each revocation) bool { return each.token.Lease.isExpired(now) })
	default:
		queue.retry = retryState{}
		r.finish(queue, err, func(each revocation) bool { return each.key == next.key })
	}
}

func (r *revocations) revoke(ctx context.Context, each revocation) error {
	ctx, cancel := context.WithTimeout(vault.WithBackground(ctx), revokeTimeout)
	defer cancel()
	client, err := r.manager.clients.Client(ctx, each.config.Endpoint, each.config.Options, each.token.Token)
	if err != nil {
		return err
	}
	if err := client.Revoke(ctx); !errors.Is(err, vault.ErrTokenGone) {
		return err
	}
	return nil // it had expired
}

// finish removes tokens of a queue. Without an error, Vault has revoked them.
func (r *revocations) finish(queue *revocationQueue, err error, isOver func(revocation) bool) {
	var over []revocation
	r.mutex.Lock()
	queue.waiting = slices.DeleteFunc(queue.waiting, func(each revocation) bool {
		if !isOver(each) {
			return false
		}
		over = append(over, each)
		delete(r.keys, each.key)
		if r.counts[queue.key.namespace]--; r.counts[queue.key.namespace] == 0 {
			delete(r.counts, queue.key.namespace)
		}
		return true
	})
	r.mutex.Unlock()
	for _, each := range over {
		if err != nil {
			r.manager.logger.Error(err, "Vault token not revoked; it expires with its TTL", logNamespace, queue.key.namespace)
		}
		r.revoked(err)
		r.manager.records.remove(each.key)
	}
}
