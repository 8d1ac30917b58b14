// Package worker runs templates in processes that can do nothing else. A template
// is a program of whoever wrote the pod, and the driver is root on the node.
//
// A worker is the driver's own program, started once more. Before it gets the first
// byte it has: a user and a group of its own, no capability, no way to gain one
// (no_new_privs, empty bounding set); namespaces of its own for processes,
// network, mounts, IPC, host name and control groups; a root directory that is
// empty and read-only; no environment; no open file but three pipes; a seccomp
// filter that allows allocating memory, running threads, reading and writing what
// is open, telling the time, and nothing else; limits for memory, stack, threads,
// files and processor time. If one of these cannot be had, there is no worker.
//
// A worker runs one template at a time, so that it is known which one broke a
// limit: that one gets an error, its worker is killed and replaced. A template that
// was in a worker that someone else killed runs once more in another. Templates that
// take long leave the workers that others wait for.
//
// What a worker answers is read as if the worker were hostile: bounded, and plain
// data.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/render"
)

// Command is the argument by which the program knows that it is a worker, and
// calls Main.
const Command = "render-worker"

const (
	// places is how many templates run at once.
	places = 2
	// slowPlaces is how many more may run that have left their place.
	slowPlaces = 1
	// attempts is in how many workers a template runs if each of them is killed:
	// all that were idle, and a new one.
	attempts = places + slowPlaces + 1
)

// Config is for New.
type Config struct {
	// Program is the path of the statically linked program to start with the
	// argument Command. Empty for the program of this process.
	Program string
	Limits  Limits
}

// Pool runs templates in workers: at least one, more when they are needed. It
// may be used concurrently, and implements provider.Renderer.
type Pool struct {
	logger klog.Logger
	config Config

	fast, slow *semaphore.Weighted

	mutex   sync.Mutex
	idle    []*process        // the last is the one used last
	all     map[*process]bool // that have a slot
	slots   []int             // that no process has
	stopped bool
	trimmer *time.Timer
	trims   sync.WaitGroup
}

// New returns a pool without a worker. Stop ends it.
func New(logger klog.Logger, config Config) *Pool {
	if config.Program == "" {
		config.Program = "/proc/self/exe"
	}
	config.Limits = config.Limits.withDefaults()
	p := &Pool{
		logger: logger, config: config, all: map[*process]bool{},
		fast: semaphore.NewWeighted(places), slow: semaphore.NewWeighted(slowPlaces),
	}
	for slot := range places + slowPlaces {
		p.slots = append(p.slots, slot)
	}
	return p
}

// Start starts the first worker, and fails if it cannot be confined. Without it,
// the first template finds out.
func (p *Pool) Start(ctx context.Context) error {
	first, err := p.start(ctx)
	if err != nil {
		return err
	}
	p.put(first)
	return nil
}

// Check implements provider.Renderer.
func (p *Pool) Check(ctx context.Context, t render.Template) error {
	_, err := p.run(ctx, request{Verb: check, Template: t})
	return err
}

// Render implements provider.Renderer. A template that breaks a limit is
// render.ErrInvalid; render.ErrUnavailable is not the template's fault.
func (p *Pool) Render(ctx context.Context, t render.Template, answers render.Answers) (render.Result, error) {
	return p.run(ctx, request{Verb: run, Template: t, Answers: answers})
}

func (p *Pool) run(ctx context.Context, r request) (render.Result, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return render.Result{}, fmt.Errorf("%w: %w", render.ErrData, err)
	}
	if len(payload) > requestLimit {
		return render.Result{}, fmt.Errorf("%w: it is longer than %d MiB together with its secrets", render.ErrInvalid, requestLimit>>20)
	}
	if err := p.fast.Acquire(ctx, 1); err != nil {
		return render.Result{}, fmt.Errorf("wait for a render worker: %w", err)
	}
	place := &place{pool: p}
	defer place.leave()
	for range attempts {
		answer, err := p.attempt(ctx, place, payload)
		if !errors.Is(err, errKilled) {
			return answer, err
		}
		p.logger.Info("Render worker was killed; trying another")
	}
	return render.Result{}, fmt.Errorf("%w: %d render workers were killed, for example because the node has no memory", render.ErrUnavailable, attempts)
}

// attempt runs a request in one worker, and keeps the worker if it behaved.
func (p *Pool) attempt(ctx context.Context, place *place, payload []byte) (render.Result, error) {
	worker, err := p.take(ctx)
	if err != nil {
		return render.Result{}, err
	}
	watch := &watch{limits: p.config.Limits, cpuTime: worker.cpuTime, resident: worker.resident, mayBeSlow: place.becomeSlow}
	answer, err := worker.exchange(ctx, payload, watch)
	if err != nil {
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

// place is what a running template has of the pool's capacity.
type place struct {
	pool *Pool
	slow bool
}

// becomeSlow gives the place to one who waits, and takes a slow one if there is.
func (p *place) becomeSlow() bool {
	if !p.pool.slow.TryAcquire(1) {
		return false
	}
	p.slow = true
	p.pool.fast.Release(1)
	return true
}

func (p *place) leave() {
	if p.slow {
		p.pool.slow.Release(1)
		return
	}
	p.pool.fast.Release(1)
}
