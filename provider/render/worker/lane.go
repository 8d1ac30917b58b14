package worker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/vaultmount/vaultmount/provider/render"
)

// lane is where templates of one kind wait for each other.
type lane struct {
	places *semaphore.Weighted
	// cpu and wall are the time that a template has in this lane; breach and late
	// are the errors of one that wants more.
	cpu, wall    time.Duration
	breach, late error
	// nice is the priority of a worker that runs here.
	nice int
}

// slowPriority leaves a quarter of a processor to slow templates where others want
// it too.
const slowPriority = 5

// errSlow is a template that has to run in the other lane.
var errSlow = errors.New("the template is slow")

// runIn runs a request when it is its turn, in another worker if one was killed.
func (p *Pool) runIn(ctx context.Context, lane *lane, payload []byte) (render.Result, error) {
	if err := lane.places.Acquire(ctx, 1); err != nil {
		return render.Result{}, fmt.Errorf("wait for a render worker: %w", err)
	}
	defer lane.places.Release(1)
	for range attempts {
		result, err := p.attempt(ctx, lane, payload)
		if !errors.Is(err, errKilled) {
			return result, err
		}
		p.logger.Info("Render worker was killed; trying another")
	}
	return render.Result{}, fmt.Errorf("%w: %d render workers were killed, for example because the node has no memory", render.ErrUnavailable, attempts)
}

// attempt runs a request in one worker, and keeps the worker if it behaved.
func (p *Pool) attempt(ctx context.Context, lane *lane, payload []byte) (render.Result, error) {
	worker, err := p.take(ctx)
	if err != nil {
		return render.Result{}, err
	}
	if err := worker.setPriority(lane.nice); err != nil {
		p.discard(worker)
		return render.Result{}, fmt.Errorf("%w: %w", render.ErrUnavailable, err)
	}
	watch := &watch{lane: lane, cpuTime: worker.cpuTime, resident: worker.resident}
	answer, err := worker.exchange(ctx, payload, watch)
	if err != nil {
		if reason := reasonOf(err); reason != "" {
			p.config.Killed(reason)
		}
		p.discard(worker)
		return render.Result{}, err
	}
	if worker.resident() > keepLimit {
		p.discard(worker)
	} else {
		p.put(worker)
	}
	return answer.result()
}

// slowTemplates are those that were found to be slow. The kubelet asks for the
// volume of a pod again and again, and so it is found out once.
type slowTemplates struct {
	mutex sync.Mutex
	keys  [][sha256.Size]byte // the oldest first
}

// maxSlow bounds what is kept in mind.
const maxSlow = 256

func templateKey(t render.Template) [sha256.Size]byte {
	return sha256.Sum256([]byte(t.LeftDelim + "\x00" + t.RightDelim + "\x00" + t.Text))
}

func (s *slowTemplates) have(key [sha256.Size]byte) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return slices.Contains(s.keys, key)
}

func (s *slowTemplates) add(key [sha256.Size]byte) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.keys) == maxSlow {
		s.keys = slices.Delete(s.keys, 0, 1)
	}
	if !slices.Contains(s.keys, key) {
		s.keys = append(s.keys, key)
	}
}
