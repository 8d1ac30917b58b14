package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// ErrTooLarge is a response over a limit. Another attempt has the same result until
// the secret or the template changes.
var ErrTooLarge = errors.New("too large")

// errBusy is a response that may fit in a moment.
var errBusy = fmt.Errorf("%w: the volumes of this namespace that read secrets right now have their share of the node's memory for it, %d bytes (%s); the driver tries again", ErrUnavailable, limits.NodeResponseBytes.Max(), limits.NodeResponseBytes)

// errNoPlace is a long response that comes before its volume has a place. It is asked
// for again with one.
var errNoPlace = fmt.Errorf("%w: other volumes read much at this time", ErrUnavailable)

// Size is how much a response holds.
type Size struct {
	// Bytes is its length as JSON.
	Bytes int
	// Values are JSON values: objects, lists, strings, numbers, booleans and nulls.
	Values int
	// Objects are those of the values that are objects.
	Objects int
}

// What a decoded value takes at most, measured with encoding/json of Go 1.26: the
// smallest object, with one member, takes 370 bytes; a value in a list 18 to 42.
const (
	valueMemory  = 48
	objectMemory = 320
)

// Memory is about how many bytes a decoded response takes: a list of empty lists takes
// fifteen times its length.
func (s Size) Memory() int64 {
	return int64(s.Bytes) + valueMemory*int64(s.Values) + objectMemory*int64(s.Objects)
}

// Add returns the sum of two sizes.
func (s Size) Add(other Size) Size {
	return Size{s.Bytes + other.Bytes, s.Values + other.Values, s.Objects + other.Objects}
}

// Sub returns what is left of a size without another.
func (s Size) Sub(other Size) Size {
	return Size{s.Bytes - other.Bytes, s.Values - other.Values, s.Objects - other.Objects}
}

// inFlight is the memory of the responses that a node reads, and that are not yet
// part of a published volume. Volumes take it bit by bit, so whoever waited for it could
// wait for somebody who waits as well. Nobody does: a response that does not fit fails,
// and its volume tries again. So that this is rare, volumes that read much wait for a
// place before, once, and while they hold nothing that others wait for.
type inFlight struct {
	mutex sync.Mutex
	free  int64
	held  map[string]int64 // by tenant, without zeros
}

func newInFlight(size int64) *inFlight { return &inFlight{free: size, held: map[string]int64{}} }

// take reports false if the tenant would hold more than all others leave free. So one
// tenant takes half of the node's, a second one a quarter, and there is always a part
// left for one more.
func (f *inFlight) take(tenant string, n int64) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.held[tenant]+n > f.free-n {
		return false
	}
	f.free -= n
	f.held[tenant] += n
	return true
}

func (f *inFlight) give(tenant string, n int64) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.free += n
	if f.held[tenant] -= n; f.held[tenant] == 0 {
		delete(f.held, tenant)
	}
}

// maxVolumeMemory is for the decoded responses of one volume: what a tenant may hold
// that is alone on the node.
var maxVolumeMemory = int64(limits.NodeResponseBytes.Max()) / 2

// freeMemory is what each volume may read without a share of the node's: the secrets
// of a usual pod take less, so no tenant can stop it.
const freeMemory = 128 << 10

// largeVolumes is how many volumes read more than freeMemory at a time. For as many, two
// of one namespace, the node's memory is enough if they hold few values.
const largeVolumes = 4

// Quota counts what one volume reads of Vault in one go, against the limits of a
// volume and of the node. It may be used concurrently, until Close.
type Quota struct {
	node   *inFlight
	places *fairqueue.Limiter
	tenant string
	// turn holds one: whoever waits for a place.
	turn chan struct{}

	mutex    sync.Mutex
	kept     Size  // by the volume, from before
	read     Size  // in this go
	taken    int64 // of the node
	hasPlace bool
}

// NewQuota returns the quota of a volume that keeps responses of a size already.
func (s *ClientPool) NewQuota(tenant string, kept Size) *Quota {
	return &Quota{node: s.inFlight, places: s.large, tenant: tenant, kept: kept, turn: make(chan struct{}, 1)}
}

// Close gives back what the quota has of the node: what was read is dropped, or the
// volume keeps it and it counts as the volume's memory.
func (q *Quota) Close() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.node.give(q.tenant, q.taken)
	q.taken = 0
	if q.hasPlace {
		q.places.Release(q.tenant, 1)
		q.hasPlace = false
	}
}

// enter waits for the place of a volume that reads much. The caller holds no turn to
// ask Vault, and none that others wait for.
func (q *Quota) enter(ctx context.Context) error {
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNoTurn, ctx.Err())
	}
	defer func() { <-q.turn }()
	q.mutex.Lock()
	hasPlace := q.hasPlace
	q.mutex.Unlock()
	if hasPlace {
		return nil
	}
	if err := q.places.Acquire(ctx, q.tenant, classOf(ctx), 1); err != nil {
		return fmt.Errorf("%w: %w", errNoTurn, err)
	}
	q.mutex.Lock()
	q.hasPlace = true
	q.mutex.Unlock()
	return nil
}

// Keep changes what the volume keeps: a response that is about to be replaced does
// not count, and counts again if nothing took its place. It takes a negative size.
func (q *Quota) AddRetained(more Size) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.kept = q.kept.Add(more)
}

// Take counts a response that was read before. The error is ErrTooLarge over a limit of
// a volume, and ErrUnavailable while the node reads too much.
func (q *Quota) Take(whole Size) error { return q.take(whole, false) }

// take counts a part of a response. The error is that of Take, or errNoPlace for one
// that needs a place.
func (q *Quota) take(part Size, needsPlace bool) error {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	read := q.read.Add(part)
	total := q.kept.Add(read)
	if err := checkVolume(total); err != nil {
		return err
	}
	if wanted := read.Memory() - freeMemory; wanted > q.taken {
		if needsPlace && !q.hasPlace {
			return errNoPlace
		}
		if !q.node.take(q.tenant, wanted-q.taken) {
			return errBusy
		}
		q.taken = wanted
	}
	q.read = read
	return nil
}

// giveBack takes a response out that failed.
func (q *Quota) giveBack(part Size) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.read = q.read.Sub(part)
	if wanted := max(q.read.Memory()-freeMemory, 0); wanted < q.taken {
		q.node.give(q.tenant, q.taken-wanted)
		q.taken = wanted
	}
}

func checkVolume(total Size) error {
	err := limits.VolumeResponseBytes.Check(total.Bytes)
	if err == nil {
		err = limits.VolumeResponseValues.Check(total.Values)
	}
	if err == nil && total.Memory() > maxVolumeMemory {
		err = fmt.Errorf("%d JSON values, of which %d are objects, take more than %d bytes of memory, half of %s", total.Values, total.Objects, maxVolumeMemory, limits.NodeResponseBytes)
	}
	if err != nil {
		return fmt.Errorf("%w: the secrets of the volume together: %w; read fewer or smaller secrets, or split the volume", ErrTooLarge, err)
	}
	return nil
}

type quotaKey struct{}

// WithQuota counts the responses to requests of a context.
func WithQuota(ctx context.Context, q *Quota) context.Context {
	return context.WithValue(ctx, quotaKey{}, q)
}

// quotaOf returns nil for a request that brings no secret of a volume.
func quotaOf(ctx context.Context) *Quota {
	q, _ := ctx.Value(quotaKey{}).(*Quota)
	return q
}
