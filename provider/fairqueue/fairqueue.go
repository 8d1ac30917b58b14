// Package fairqueue shares a limited resource between tenants: places for requests,
// refreshes or template runs, or bytes of memory. Tenants take turns, so one that
// asks a thousand times waits for itself and not in front of the others, and no
// tenant holds more than its share. The package does not know what the resource is,
// and starts no goroutine.
package fairqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

var (
	// ErrTooLarge is a request for more than one tenant may ever hold.
	ErrTooLarge = errors.New("more than the share of one tenant")
	// ErrQueueFull is a request of a tenant that has too many waiting.
	ErrQueueFull = errors.New("too many requests of one tenant wait")
)

// Class orders requests: a pod that waits to start passes before a refresh, whoever
// asks for them.
type Class int

// The classes, the first one passes first.
const (
	Foreground Class = iota
	Background
	classes
)

const (
	// foregroundRun is how many foreground requests pass in a row while one in the
	// background waits: two tenants that ask all the time must not stop the refreshes
	// of the others.
	foregroundRun = 8
	// maxWaiting bounds the requests of one tenant and class that wait. It is far
	// above what the pods of a full node ask at one time.
	maxWaiting = 4096
)

// Limiter hands out amounts of a resource. It may be used concurrently.
type Limiter struct {
	mutex  sync.Mutex
	free   int64
	share  int64
	held   map[string]int64 // by tenant, without zeros
	queues [classes]queue
	run    int // foreground requests that passed while the background waited
}

// New returns a limiter over size units, of which one tenant holds at most half,
// rounded up.
func New(size int64) *Limiter { return NewWithShare(size, (size+1)/2) }

// NewWithShare returns a limiter over size units, of which one tenant holds at most
// share.
func NewWithShare(size, share int64) *Limiter {
	l := &Limiter{free: size, share: share, held: map[string]int64{}}
	for i := range l.queues {
		l.queues[i].waiters = map[string][]*waiter{}
	}
	return l
}

// Acquire waits for n units, or for the end of ctx, whose error it returns then. The
// error is ErrTooLarge or ErrQueueFull for a request that may not wait. Each Acquire
// without an error is followed by one Release of the same tenant and amount.
func (l *Limiter) Acquire(ctx context.Context, tenant string, class Class, n int64) error {
	if n > l.share {
		return fmt.Errorf("acquire %d units of %d: %w", n, l.share, ErrTooLarge)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mutex.Lock()
	w := &waiter{tenant: tenant, n: n, ready: make(chan struct{})}
	if !l.queues[class].push(w) {
		l.mutex.Unlock()
		return ErrQueueFull
	}
	l.grant()
	l.mutex.Unlock()

	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	select {
	case <-w.ready: // granted while ctx ended
		l.release(tenant, n)
	default:
		l.queues[class].remove(w)
	}
	l.grant() // a large request that gave up was in front of smaller ones
	return ctx.Err()
}

// Release gives n units of a tenant back.
func (l *Limiter) Release(tenant string, n int64) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.release(tenant, n)
	l.grant()
}

// Waiting returns how many requests wait.
func (l *Limiter) Waiting() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	total := 0
	for i := range l.queues {
		total += l.queues[i].waiting
	}
	return total
}

func (l *Limiter) release(tenant string, n int64) {
	l.free += n
	if l.held[tenant] -= n; l.held[tenant] == 0 {
		delete(l.held, tenant)
	}
}

// grant lets through all that fit. The mutex is held.
func (l *Limiter) grant() {
	foreground, background := &l.queues[Foreground], &l.queues[Background]
	for {
		switch {
		case l.run >= foregroundRun && l.grantNext(background):
			l.run = 0
		case l.grantNext(foreground):
			if background.waiting > 0 {
				l.run++
			}
		case l.grantNext(background):
			l.run = 0
		default:
			return
		}
	}
}

// grantNext grants the first request of the next tenant in a class. It skips a tenant
// that has its share. A request that only lacks free units ends the round: smaller ones
// of other tenants would keep it waiting for ever.
func (l *Limiter) grantNext(q *queue) bool {
	for _, tenant := range q.order {
		w := q.waiters[tenant][0]
		if l.held[tenant]+w.n > l.share {
			continue
		}
		if w.n > l.free {
			return false
		}
		q.remove(w)
		l.free -= w.n
		l.held[tenant] += w.n
		close(w.ready)
		return true
	}
	return false
}

type waiter struct {
	tenant string
	n      int64
	ready  chan struct{} // closed when granted
}

// queue holds the waiting requests of one class.
type queue struct {
	waiting int
	waiters map[string][]*waiter // by tenant
	order   []string             // of the tenants' turns
}

// push reports false for a tenant that has too many waiting.
func (q *queue) push(w *waiter) bool {
	own := q.waiters[w.tenant]
	if len(own) >= maxWaiting {
		return false
	}
	if len(own) == 0 {
		q.order = append(q.order, w.tenant)
	}
	q.waiters[w.tenant] = append(own, w)
	q.waiting++
	return true
}

// remove takes a request out. If it was the tenant's first one, others have their
// turn before the tenant's next one.
func (q *queue) remove(w *waiter) {
	own, turn := q.waiters[w.tenant], slices.Index(q.order, w.tenant)
	at := slices.Index(own, w)
	own = slices.Delete(own, at, at+1)
	q.waiters[w.tenant] = own
	q.waiting--
	if at == 0 {
		q.order = slices.Delete(q.order, turn, turn+1)
	}
	switch {
	case len(own) == 0:
		delete(q.waiters, w.tenant)
	case at == 0:
		q.order = append(q.order, w.tenant)
	}
}

type tenantKey struct{}

// WithTenant says on whose account what runs under ctx asks for a resource: the
// namespace of the pod. It travels in the context because the HTTP transport, which
// waits for a place, is given nothing else.
func WithTenant(ctx context.Context, namespace string) context.Context {
	return context.WithValue(ctx, tenantKey{}, namespace)
}

// Tenant returns the namespace that WithTenant set. All work without one counts as
// the work of a single tenant, whose name no namespace has.
func Tenant(ctx context.Context) string {
	namespace, _ := ctx.Value(tenantKey{}).(string)
	return namespace
}
