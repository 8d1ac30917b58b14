package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vaultmount/vaultmount/provider/render"
)

var errStopped = errors.New("the driver is stopping")

// take returns an idle worker, or a new one.
func (p *Pool) take(ctx context.Context) (*process, error) {
	for {
		worker := p.takeIdle()
		if worker == nil {
			break
		}
		select {
		case <-worker.exited:
			p.discard(worker)
		default:
			return worker, nil
		}
	}
	worker, err := p.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", render.ErrUnavailable, err)
	}
	return worker, nil
}

func (p *Pool) takeIdle() *process {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	worker := p.idle[last]
	p.idle = p.idle[:last]
	return worker
}

// start makes a worker. Those who have a place are never more than the slots: a
// worker that is not idle is theirs.
func (p *Pool) start(ctx context.Context) (*process, error) {
	p.mutex.Lock()
	if p.stopped {
		p.mutex.Unlock()
		return nil, errStopped
	}
	slot := p.slots[0]
	p.slots = p.slots[1:]
	p.mutex.Unlock()

	worker, err := startProcess(ctx, p.config.Program, []string{Command}, slot)

	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err != nil {
		p.slots = append(p.slots, slot)
		return nil, err
	}
	p.all[worker] = true
	if p.stopped {
		worker.kill()
	}
	return worker, nil
}

// put keeps a worker for the next template.
func (p *Pool) put(worker *process) {
	worker.idleSince = time.Now()
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.idle = append(p.idle, worker)
	p.armTrimmer()
}

// discard ends a worker that is not idle, and waits for it.
func (p *Pool) discard(worker *process) {
	worker.end()
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.all, worker)
	p.slots = append(p.slots, worker.slot)
}

// armTrimmer has idle workers ended in time, all but one.
func (p *Pool) armTrimmer() {
	if len(p.idle) < 2 || p.trimmer != nil || p.stopped {
		return
	}
	p.trims.Add(1)
	p.trimmer = time.AfterFunc(p.config.Limits.Idle, func() {
		defer p.trims.Done()
		for _, worker := range p.tooLongIdle() {
			p.discard(worker)
		}
	})
}

// tooLongIdle takes workers that were not needed, never the one used last.
func (p *Pool) tooLongIdle() []*process {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.trimmer = nil
	var old []*process
	for len(p.idle) > 1 && time.Since(p.idle[0].idleSince) >= p.config.Limits.Idle {
		old = append(old, p.idle[0])
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	p.armTrimmer()
	return old
}

// Stop kills all workers and waits until nothing is left of them, for at most the
// time that ctx leaves. Templates that run get render.ErrUnavailable.
func (p *Pool) Stop(ctx context.Context) error {
	p.mutex.Lock()
	p.stopped = true
	if p.trimmer != nil && p.trimmer.Stop() {
		p.trims.Done()
	}
	workers := make([]*process, 0, len(p.all))
	for worker := range p.all {
		worker.kill()
		workers = append(workers, worker)
	}
	p.mutex.Unlock()
	for _, worker := range workers {
		select {
		case <-worker.exited:
		case <-ctx.Done():
			return fmt.Errorf("wait for the render workers to end: %w", ctx.Err())
		}
	}
	p.trims.Wait()
	return nil
}
