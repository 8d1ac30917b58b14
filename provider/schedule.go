package provider

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"
)

// schedule runs tasks when they are due: one timer for all of them, and a bounded
// number of goroutines for those that run. A task never runs twice at a time.
type schedule struct {
	clock  clock.Clock
	cancel context.CancelFunc
	done   chan struct{}
	moved  chan struct{} // holds one: the dispatcher looks again

	mutex   sync.Mutex
	waiting taskHeap
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

// startSchedule dispatches until stop or drain.
func startSchedule(clock clock.Clock, workers int) *schedule {
	ctx, cancel := context.WithCancel(context.Background())
	s := &schedule{clock: clock, cancel: cancel, done: make(chan struct{}), moved: make(chan struct{}, 1)}
	go s.dispatch(ctx, workers)
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
		heap.Push(&s.waiting, t)
	default:
		heap.Fix(&s.waiting, t.index)
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
		heap.Remove(&s.waiting, t.index)
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
	if len(s.waiting) == 0 {
		return 0
	}
	return max(s.clock.Now().Sub(s.waiting[0].at), 0)
}

func (s *schedule) look() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

func (s *schedule) dispatch(ctx context.Context, workers int) {
	defer close(s.done)
	var pool errgroup.Group
	pool.SetLimit(workers)
	defer func() { _ = pool.Wait() }() // tasks have no errors
	for ctx.Err() == nil {
		due, own, next, ended := s.pop(ctx)
		switch {
		case due != nil:
			pool.Go(func() error {
				s.execute(own, due)
				return nil
			})
		case ended:
			return
		default:
			s.sleep(ctx, next)
		}
	}
}

// pop returns a task that is due with the context of its run, or when the next
// one is; zero for none.
func (s *schedule) pop(ctx context.Context) (due *task, own context.Context, next time.Time, ended bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.ending == afterRunning {
		return nil, nil, next, s.running == 0
	}
	if len(s.waiting) == 0 || s.waiting[0].at.After(s.clock.Now()) {
		if len(s.waiting) > 0 {
			next = s.waiting[0].at
		}
		return nil, nil, next, s.ending == afterDue && s.running == 0
	}
	due = heap.Pop(&s.waiting).(*task)
	due.at = time.Time{}
	own, due.cancel = context.WithCancel(ctx)
	s.running++
	return due, own, next, false
}

func (s *schedule) execute(ctx context.Context, t *task) {
	next := t.run(ctx)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	t.cancel()
	t.cancel = nil
	s.running--
	s.look()
	if t.at.IsZero() || !next.IsZero() && next.Before(t.at) {
		t.at = next
	}
	if !t.at.IsZero() && !t.removed {
		heap.Push(&s.waiting, t)
	}
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
