package webhook

import (
	"context"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

// Memory of all requests at a time, in bytes. Together with connections and what the
// program takes by itself it stays below the 128 MiB of the chart. Half of each is
// what one host or namespace may hold, and enough for the largest review.
const (
	bodyMemory   = 12 << 20
	reviewMemory = 40 << 20
	// freeBody is read without a reservation. Most reviews are smaller, so whoever sends
	// large ones, or slowly, does not hold them up.
	freeBody = 32 << 10
)

// maxRunning is how many reviews are worked on at a time. One namespace has half of
// them, so its flood does not take the CPU from a review of another one.
const maxRunning = 4

// What a request takes at most, measured over hostile reviews: a body is decoded
// into a copy, and a review holds the object, its strings, the patch and its encoding.
const (
	bodyFactor    = 2
	reviewFactor  = 3
	bytesPerValue = 200
)

// Bounds of one request. They leave time for another attempt before the API server
// gives up, which is after five seconds in the chart.
const (
	readTimeout   = time.Second     // to wait for memory for the body
	bodyTimeout   = 2 * time.Second // to send it
	waitTimeout   = 2 * time.Second // to wait for memory for the review
	answerTimeout = 5 * time.Second // to read the answer
)

// capacity shares memory and CPU time between requests. A request waits for memory for
// its body, then for memory for its review, then for its turn to run. Nobody waits for
// what comes before while it holds what comes after, so that they cannot block each
// other.
type capacity struct {
	bodies, reviews, running *fairqueue.Limiter
}

func newCapacity() *capacity {
	return &capacity{bodies: fairqueue.New(bodyMemory), reviews: fairqueue.New(reviewMemory), running: fairqueue.New(maxRunning)}
}

// forBody is fair by host: the namespace of a review is not known before it is read.
func (c *capacity) forBody(ctx context.Context, host string, length int64) (*reservation, error) {
	if length <= freeBody {
		return &reservation{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return reserve(ctx, c.bodies, host, bodyFactor*length)
}

// forReview is fair by namespace.
func (c *capacity) forReview(ctx context.Context, namespace string, length, values int) (*reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	return reserve(ctx, c.reviews, namespace, int64(reviewFactor*length+bytesPerValue*values))
}

// forTurn is fair by namespace.
func (c *capacity) forTurn(ctx context.Context, namespace string) (*reservation, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	return reserve(ctx, c.running, namespace, 1)
}

// reservation is memory, or a turn to run, that one request has. The zero value is none.
type reservation struct {
	limiter *fairqueue.Limiter
	tenant  string
	amount  int64
}

func reserve(ctx context.Context, limiter *fairqueue.Limiter, tenant string, amount int64) (*reservation, error) {
	if err := limiter.Acquire(ctx, tenant, fairqueue.Foreground, amount); err != nil {
		return nil, err
	}
	return &reservation{limiter, tenant, amount}, nil
}

// shrink gives back all but an amount.
func (r *reservation) shrink(amount int64) {
	if r.amount > amount {
		r.limiter.Release(r.tenant, r.amount-amount)
		r.amount = amount
	}
}

// free gives back all.
func (r *reservation) free() { r.shrink(0) }

// countValues counts the values of JSON, and at least as many as there are.
func countValues(text []byte) int {
	count, inString := 1, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == '[' || c == '{'):
			count++
		}
	}
	return count
}
