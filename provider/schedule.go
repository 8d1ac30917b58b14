package provider

import (
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

// schedule runs tasks when they are due: one timer for all of them, and a bounded
// number of goroutines for those that run. A task never runs twice at a time. Tenants
// take turns, and none has more than its share of the goroutines: tasks of one that wait
// for a Vault which hangs do not keep those of others from running.
type schedule struct {
	clock          clock.Clock
	workers, share int
	cancel         context.CancelFunc
	done           chan struct{}
	moved          chan struct{} // holds one: the dispatcher looks again

	mutex sync.Mutex
	// queues are in the order of their turns.
	queues  []*taskQueue
	running int
	ending  ending
}

// ending is whether a schedule goes on: for ever, until nothing is due, or until
// nothing runs.
type ending int

const (
	goOn ending = iota
	afterDue
	afterRunning
)

// startSchedule dispatches until stop or drain, to as many workers, of which share are
// for one tenant at most.
func startSchedule(clock clock.Clock, workers, share int) *schedule {
	ctx, cancel := context.WithCancel(context.Background())
	s := &schedule{clock: clock, workers: workers, share: share, cancel: cancel, done: make(chan struct{}), moved: make(chan struct{}, 1)}
	go s.dispatch(ctx)
	return s
}

// stop starts nothing more, and waits for what runs. When ctx ends, so do the
// contexts of the tasks.
func (s *schedule) stop(ctx context.Context) { s.end(ctx, afterRunning) }

// drain runs what is due by now, and stops.
func (s *schedule) drain(ctx context.Context) { s.end(ctx, afterDue) }

func (s *schedule) end(ctx context.Context, how ending) {
	s.mutex.Lock()
	s.ending = how
	s.mutex.Unlock()
	s.look()
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	s.cancel()
	<-s.done
}

// wake makes a task run at a time, or before if it is planned so already.
func (s *schedule) wake(t *task, at time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if t.removed || !t.at.IsZero() && !at.Before(t.at) {
		return
	}
	t.at = at
	switch {
	case t.cancel != nil: // it runs, and is put back when it has
	case t.index == notWaiting:
		heap.Push(&s.queueOf(t).waiting, t)
	default:
		heap.Fix(&s.queueOf(t).waiting, t.index)
	}
	s.look()
}

// remove forgets a task. If it runs, its context ends; remove does not wait.
func (s *schedule) remove(t *task) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	t.removed = true
	if t.cancel != nil {
		t.cancel()
	}
	if t.index != notWaiting {
		queue := s.queueOf(t)
		heap.Remove(&queue.waiting, t.index)
		s.dropIfEmpty(queue)
	}
}

// planned is when a task runs next, zero for nobody knows. For one that runs it
// is now or in the past.
func (s *schedule) planned(t *task) time.Time {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if t.cancel != nil {
		return s.clock.Now()
	}
	return t.at
}

// lag is for how long the task has been due that has waited longest, 0 if none
// has.
func (s *schedule) lag() time.Duration {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	longest, now := time.Duration(0), s.clock.Now()
	for _, queue := range s.queues {
		if len(queue.waiting) > 0 {
			longest = max(longest, now.Sub(queue.waiting[0].at))
		}
	}
	return longest
}

func (s *schedule) look() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

// queueOf returns the queue of a task's tenant, made if need be. The mutex is held.
func (s *schedule) queueOf(t *task) *taskQueue {
	for _, queue := range s.queues {
		if queue.tenant == t.tenant {
			return queue
		}
	}
	queue := &taskQueue{tenant: t.tenant}
	s.queues = append(s.queues, queue)
	return queue
}

func (s *schedule) dropIfEmpty(queue *taskQueue) {
	if len(queue.waiting) == 0 && queue.running == 0 {
		s.queues = slices.DeleteFunc(s.queues, func(q *taskQueue) bool { return q == queue })
	}
}

func (s *schedule) dispatch(ctx context.Context) {
	defer close(s.done)
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		due, own, next, ended := s.pop(ctx)
		switch {
		case due != nil:
			running.Go(func() { s.execute(own, due) })
		case ended:
			return
		default:
			s.sleep(ctx, next)
		}
	}
}

// pop returns a task that is due with the context of its run, or when the next
// one is; zero for none before another has run.
func (s *schedule) pop(ctx context.Context) (due *task, own context.Context, next time.Time, ended bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.ending == afterRunning {
		return nil, nil, next, s.running == 0
	}
	now, nothingDue := s.clock.Now(), true
	for i, queue := range s.queues {
		switch {
		case len(queue.waiting) == 0:
		case queue.waiting[0].at.After(now):
			next = earlier(next, queue.waiting[0].at)
		case s.running >= s.workers || queue.running >= s.share:
			nothingDue = false
		default:
			s.queues = append(slices.Delete(s.queues, i, i+1), queue) // the others have their turns first
			due, own = s.take(ctx, queue)
			return due, own, next, false
		}
	}
	return nil, nil, next, s.ending == afterDue && nothingDue && s.running == 0
}

func (s *schedule) take(ctx context.Context, queue *taskQueue) (due *task, own context.Context) {
	due = heap.Pop(&queue.waiting).(*task)
	due.at = time.Time{}
	own, due.cancel = context.WithCancel(fairqueue.WithTenant(ctx, due.tenant))
	s.running++
	queue.running++
	return due, own
}

func (s *schedule) execute(ctx context.Context, t *task) {
	next := t.run(ctx)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	t.cancel()
	t.cancel = nil
	queue := s.queueOf(t)
	s.running--
	queue.running--
	s.look()
	if t.at.IsZero() || !next.IsZero() && next.Before(t.at) {
		t.at = next
	}
	if !t.at.IsZero() && !t.removed {
		heap.Push(&queue.waiting, t)
	}
	s.dropIfEmpty(queue)
}

// jump is more time than passes between two looks at a clock.
const jump = 100 * time.Millisecond

// sleep waits until a time, or until something moved.
func (s *schedule) sleep(ctx context.Context, until time.Time) {
	if until.IsZero() {
		select {
		case <-ctx.Done():
		case <-s.moved:
		}
		return
	}
	now := s.clock.Now()
	timer := s.clock.NewTimer(until.Sub(now))
	defer timer.Stop()
	// Time may have passed since the last look at the clock. If it has jumped before
	// the timer was there, that would come late by as much.
	if again := s.clock.Now(); !again.Before(until) || again.Sub(now) > jump {
		return
	}
	select {
	case <-ctx.Done():
	case <-s.moved:
	case <-timer.C():
	}
}
