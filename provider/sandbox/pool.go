package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vaultmount/vaultmount/provider/template"
)

var errStopped = errors.New("the driver is stopping")

// take returns a worker that has served nobody but the tenant. The caller owns it,
// and gives it to put or discard. The caller has a place of the limiter.
func (p *Pool) take(ctx context.Context, tenant string) (*process, error) {
	for {
		worker, err := p.takeIdle(tenant)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", template.ErrUnavailable, err)
		}
		if worker == nil {
			break
		}
		select {
		case <-worker.exited: // something else has killed it
			p.discard(worker)
		default:
			return worker, nil
		}
	}
	worker, err := p.start(ctx, tenant, false)
	if err != nil {
		p.discard(nil)
		return nil, fmt.Errorf("%w: %w", template.ErrUnavailable, err)
	}
	return worker, nil
}

// takeIdle returns the tenant's own worker, or the spare one, or nil if the caller is
// to start one.
func (p *Pool) takeIdle(tenant string) (*process, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.stopped {
		return nil, errStopped
	}
	p.taken++
	for _, fits := range []func(*process) bool{
		func(w *process) bool { return !w.isSpare && w.tenant == tenant },
		func(w *process) bool { return w.isSpare },
	} {
		if i := slices.IndexFunc(p.idle, fits); i >= 0 {
			worker := p.removeIdle(i)
			worker.tenant, worker.isSpare = tenant, false
			p.startSpare()
			return worker, nil
		}
	}
	p.makeWay()
	p.startSpare()
	return nil, nil
}

// startSpare starts a worker that has served nobody, if there is none, so that the
// next new tenant does not wait for a process to start. The mutex is held.
func (p *Pool) startSpare() {
	if p.startsSpare || slices.ContainsFunc(p.idle, func(w *process) bool { return w.isSpare }) {
		return
	}
	p.startsSpare = true
	p.taken++
	p.makeWay()
	p.background.Go(func() {
		worker, err := p.start(context.Background(), "", true)
		p.mutex.Lock()
		p.startsSpare = false
		p.mutex.Unlock()
		if err != nil {
			p.discard(nil) // the next call starts one by itself, and reports the error
			return
		}
		p.put(worker)
	})
}

// makeWay ends the worker that was idle for longest if there would be too many. The
// mutex is held.
func (p *Pool) makeWay() {
	if p.taken+len(p.idle) > maxProcesses && len(p.idle) > 0 {
		p.removeIdle(0).kill()
	}
}

// removeIdle makes the caller the owner of an idle worker. The mutex is held.
func (p *Pool) removeIdle(i int) *process {
	worker := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	if worker.expiry != nil {
		worker.expiry.Stop() // expire does nothing if it is too late for that
	}
	return worker
}

// start makes a worker, and has it forgotten when it is gone.
func (p *Pool) start(ctx context.Context, tenant string, isSpare bool) (*process, error) {
	id := firstID + (p.started.Add(1)-1)%idCount
	worker, err := startProcess(ctx, p.config.Program, []string{Command}, id)
	if err != nil {
		return nil, err
	}
	worker.tenant, worker.isSpare = tenant, isSpare
	p.mutex.Lock()
	if !p.stopped {
		p.all[worker] = true
		p.background.Go(func() { p.forget(worker) })
	}
	stopped := p.stopped
	p.mutex.Unlock()
	if stopped {
		worker.end()
		return nil, errStopped
	}
	return worker, nil
}

func (p *Pool) forget(worker *process) {
	<-worker.exited
	p.mutex.Lock()
	defer p.mutex.Unlock()
	delete(p.all, worker)
}

// put keeps a worker for the tenant's next template. The spare one has no end.
func (p *Pool) put(worker *process) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.taken--
	if p.stopped {
		worker.kill()
		return
	}
	p.idle = append(p.idle, worker)
	if !worker.isSpare {
		worker.expiry = time.AfterFunc(p.config.Limits.Idle, func() { p.expire(worker) })
	}
}

// expire ends a worker whose tenant has not needed it.
func (p *Pool) expire(worker *process) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if i := slices.Index(p.idle, worker); i >= 0 {
		p.removeIdle(i).kill()
	}
}

// discard ends a worker, which is nil if it could not be started.
func (p *Pool) discard(worker *process) {
	if worker != nil {
		worker.end()
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.taken--
}

// Stop kills all workers and waits until nothing is left of them, for at most the
// time that ctx leaves. Templates that run get template.ErrUnavailable.
func (p *Pool) Stop(ctx context.Context) error {
	p.mutex.Lock()
	p.stopped = true
	p.idle = nil
	for worker := range p.all {
		worker.kill()
	}
	p.mutex.Unlock()
	ended := make(chan struct{})
	go func() {
		p.background.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the render workers to end: %w", ctx.Err())
	}
}
