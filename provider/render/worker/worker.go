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
// take long wait for each other, and no other template waits for them.
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
	// quickPlaces and slowPlaces are how many templates of the two kinds run at
	// once.
	quickPlaces = 2
	slowPlaces  = 1
	// attempts is in how many workers a template runs if each of them is killed:
	// all that were idle, and a new one.
	attempts = quickPlaces + slowPlaces + 1
)

// Config is for New.
type Config struct {
	// Program is the path of the statically linked program to start with the
	// argument Command. Empty for the program of this process.
	Program string
	Limits  Limits
	// Killed hears why a worker was ended because of its template, or by someone
	// else; nil for nobody. It may be called concurrently, and answers at once.
	Killed func(Reason)
}

// Pool runs templates in workers: at least one, more when they are needed. It
// may be used concurrently, and implements provider.Renderer.
type Pool struct {
	logger klog.Logger
	config Config

	quick, slow lane
	known       slowTemplates

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
	if config.Killed == nil {
		config.Killed = func(Reason) {}
	}
	config.Limits = config.Limits.withDefaults()
	limits := config.Limits
	p := &Pool{
		logger: logger, config: config, all: map[*process]bool{},
		quick: lane{
			places: semaphore.NewWeighted(quickPlaces),
			cpu:    min(limits.Slow, limits.CPU), breach: errSlow,
			wall: min(quickWall, limits.Wall), late: errSlow,
		},
		slow: lane{
			places: semaphore.NewWeighted(slowPlaces), nice: slowPriority,
			cpu: limits.CPU, breach: fmt.Errorf("%w: %w than %s of processor time", render.ErrInvalid, errCPU, limits.CPU),
			wall: limits.Wall, late: fmt.Errorf("%w: %w in %s, and got less than %s of processor time; the node is busy", render.ErrUnavailable, errWall, limits.Wall, limits.CPU),
		},
	}
	for slot := range quickPlaces + slowPlaces {
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

// Render implements provider.Renderer. A template that breaks a limit is
// render.ErrInvalid; render.ErrUnavailable is not the template's fault.
func (p *Pool) Render(ctx context.Context, t render.Template, answers render.Answers) (render.Result, error) {
	payload, err := json.Marshal(request{Template: t, Answers: answers})
	if err != nil {
		return render.Result{}, fmt.Errorf("%w: %w", render.ErrData, err)
	}
	if len(payload) > requestLimit {
		return render.Result{}, fmt.Errorf("%w: it is longer than %d MiB together with its secrets", render.ErrInvalid, requestLimit>>20)
	}
	key := templateKey(t)
	if !p.known.have(key) {
		result, err := p.runIn(ctx, &p.quick, payload)
		if !errors.Is(err, errSlow) {
			return result, err
		}
		p.known.add(key)
	}
	return p.runIn(ctx, &p.slow, payload)
}
