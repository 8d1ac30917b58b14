package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// ErrTooLarge is a response over a limit. Another attempt has the same result until
// the secret or the template changes.
var ErrTooLarge = errors.New("too large")

var (
	// errNodeFull is a response that may fit soon.
	errNodeFull = fmt.Errorf("%w: the volumes of this namespace that read secrets now use their share of the node's memory for responses, %d bytes (%s); the driver tries again",
		ErrUnavailable, limits.NodeResponseBytes.Max(), limits.NodeResponseBytes)
	// errNeedsSlot is a long response that comes before its volume has a slot. The client
	// waits for the slot and sends the request again.
	errNeedsSlot = fmt.Errorf("%w: other volumes read large secrets now", ErrUnavailable)
)

// Size is how much a response holds.
type Size struct {
	// Bytes is its length as JSON.
	Bytes int
	// Values counts JSON values: objects, lists, strings, numbers, booleans and nulls.
	Values int
	// Objects counts those of the values that are objects.
	Objects int
}

// The most memory of one decoded value, measured with encoding/json of Go 1.26: the
// smallest object, with one member, takes 370 bytes; a value in a list 18 to 42.
const (
	valueMemory  = 48
	objectMemory = 320
)

// Memory estimates the bytes of memory of a decoded response. A list of empty lists
// takes fifteen times its length.
func (s Size) Memory() int64 {
	return int64(s.Bytes) + valueMemory*int64(s.Values) + objectMemory*int64(s.Objects)
}

// Add returns the sum of two sizes.
func (s Size) Add(other Size) Size {
	return Size{s.Bytes + other.Bytes, s.Values + other.Values, s.Objects + other.Objects}
}

// Sub returns the difference of two sizes.
func (s Size) Sub(other Size) Size {
	return Size{s.Bytes - other.Bytes, s.Values - other.Values, s.Objects - other.Objects}
}

// nodeMemory is the memory for the responses that a node reads at one time. Volumes
// take it bit by bit, so waiting for it could be a deadlock: a response that does not
// fit fails, and its volume tries again.
type nodeMemory struct {
	mutex sync.Mutex
	free  int64
	used  map[string]int64 // by namespace, without zeros
}

func newNodeMemory(size int64) *nodeMemory { return &nodeMemory{free: size, used: map[string]int64{}} }

// take reports false if the namespace would use more than it leaves to the others. So
// one namespace takes half of the memory, a second one a quarter, and a part is always
// left for one more.
func (m *nodeMemory) take(namespace string, n int64) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.used[namespace]+n > m.free-n {
		return false
	}
	m.free -= n
	m.used[namespace] += n
	return true
}

func (m *nodeMemory) release(namespace string, n int64) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.free += n
	if m.used[namespace] -= n; m.used[namespace] == 0 {
		delete(m.used, namespace)
	}
}

const (
	// smallVolumeMemory is what each volume may read beside the node's memory. The secrets
	// of a usual pod take less, so no other namespace can stop it.
	smallVolumeMemory = 128 << 10
	// largeVolumeSlots is how many volumes read more at one time. For as many, two of one
	// namespace, the node's memory is enough if they hold few values.
	largeVolumeSlots = 4
)

// maxVolumeMemory is what one namespace can use that is alone on the node.
var maxVolumeMemory = int64(limits.NodeResponseBytes.Max()) / 2

// Quota counts what one volume reads from Vault in one pass against the limits of a
// volume and of the node. It may be used concurrently until Close.
type Quota struct {
	memory    *nodeMemory
	slots     *fairqueue.Limiter
	namespace string
	acquiring *semaphore.Weighted // held by the request that waits for the slot
	hasSlot   atomic.Bool

	mutex    sync.Mutex
	retained Size  // by the volume, from earlier passes
	read     Size  // in this pass
	taken    int64 // of the node's memory
}

// NewQuota returns the quota of a volume that retains responses of a size.
func (p *ClientPool) NewQuota(namespace string, retained Size) *Quota {
	return &Quota{memory: p.memory, slots: p.largeReads, namespace: namespace, retained: retained, acquiring: semaphore.NewWeighted(1)}
}

// Close releases the node's memory. The volume has dropped the responses, or retains
// them and counts them as its own memory.
func (q *Quota) Close() {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.memory.release(q.namespace, q.taken)
	q.taken = 0
	if q.hasSlot.Swap(false) {
		q.slots.Release(q.namespace, 1)
	}
}

// acquireSlot waits for the slot of a volume that reads large secrets. The caller holds
// no slot of the limiter of requests, or two volumes could wait for each other.
func (q *Quota) acquireSlot(ctx context.Context) error {
	if err := q.acquiring.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	defer q.acquiring.Release(1)
	if q.hasSlot.Load() {
		return nil
	}
	if err := q.slots.Acquire(ctx, q.namespace, callOf(ctx).class, 1); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	q.hasSlot.Store(true)
	return nil
}

// AddRetained changes what the volume retains: a response that is about to be replaced
// does not count, so the caller adds its size with a negative sign.
func (q *Quota) AddRetained(more Size) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.retained = q.retained.Add(more)
}

// Take counts a response that another volume has read. The error is ErrTooLarge over a
// limit of a volume, and ErrUnavailable while the node reads too much.
func (q *Quota) Take(whole Size) error { return q.take(whole, false) }

// take counts a part of a response. Beside the errors of Take, it returns errNeedsSlot
// for a response that needs one.
func (q *Quota) take(part Size, needsSlot bool) error {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	read := q.read.Add(part)
	if err := checkVolume(q.retained.Add(read)); err != nil {
		return err
	}
	if wanted := read.Memory() - smallVolumeMemory; wanted > q.taken {
		if needsSlot && !q.hasSlot.Load() {
			return errNeedsSlot
		}
		if !q.memory.take(q.namespace, wanted-q.taken) {
			return errNodeFull
		}
		q.taken = wanted
	}
	q.read = read
	return nil
}

// undo takes back what a failed response has counted.
func (q *Quota) undo(part Size) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.read = q.read.Sub(part)
	if wanted := max(q.read.Memory()-smallVolumeMemory, 0); wanted < q.taken {
		q.memory.release(q.namespace, q.taken-wanted)
		q.taken = wanted
	}
}

func checkVolume(total Size) error {
	err := limits.VolumeResponseBytes.Check(total.Bytes)
	if err == nil {
		err = limits.VolumeResponseValues.Check(total.Values)
	}
	if err == nil && total.Memory() > maxVolumeMemory {
		err = fmt.Errorf("%d JSON values, of which %d are objects, take more than %d bytes of memory, half of %s",
			total.Values, total.Objects, maxVolumeMemory, limits.NodeResponseBytes)
	}
	if err != nil {
		return fmt.Errorf("%w: the secrets of the volume together: %w; read fewer or smaller secrets, or split the volume", ErrTooLarge, err)
	}
	return nil
}
