// Package sandbox runs templates in processes that can do nothing else. A template
// is a program of whoever wrote the pod, and the driver is root on the node.
//
// A worker is the driver's own program, started once more. Before it gets the first
// byte it has: a user and a group of its own, no capability, no way to gain one
// (no_new_privs, empty bounding set); namespaces of its own for processes,
// network, mounts, IPC, host name and control groups; a root directory that is
// empty and read-only; no environment; no open file but three pipes; a seccomp
// filter that allows allocating memory, running threads, reading and writing what
// is open, telling the time, and nothing else; limits for memory, stack, threads,
// files and CPU time. If one of these cannot be had, there is no worker.
//
// A worker runs one template at a time, so that it is known which one broke a
// limit: that one gets an error, its worker is killed and replaced. A template that
// was in a worker that someone else killed runs once more in another.
//
// A worker serves one tenant, the namespace of a pod, and then it ends. So code that
// takes a worker over sees no secret of another tenant and answers none of its
// templates. Tenants take turns, and none holds more than half of the places, so a
// tenant with slow templates waits for itself.
//
// What a worker answers is read as if the worker were hostile: bounded, and plain
// data.
package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

// Command is the argument by which the program knows that it is a worker, and
// calls Main.
const Command = "render-worker"

const (
	// places is how many templates run at once. A tenant holds at most half of
	// them, rounded up.
	places = 3
	// maxProcesses are those that run a template, and a spare one.
	maxProcesses = places + 1
	// attempts is in how many workers a template runs if each of them is killed.
	attempts = places + 1
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

// Pool runs templates in workers. One waits for the next new tenant, others are started
// as they are needed. It may be used concurrently, and implements provider.Renderer.
type Pool struct {
	logger  klog.Logger
	config  Config
	places  *fairqueue.Limiter
	started atomic.Uint32 // processes so far

	// A worker in idle belongs to the pool. Any other belongs to the call that took
	// or started it, which counts in taken.
	mutex       sync.Mutex
	idle        []*process // the last is the one used last
	taken       int
	startsSpare bool
	stopped     bool
	// all are the processes that exist, for Stop.
	all        map[*process]bool
	background sync.WaitGroup
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
	return &Pool{logger: logger, config: config, places: fairqueue.New(places), all: map[*process]bool{}}
}

// Start starts the first worker, and fails if it cannot be confined. Without it,
// the first template finds out.
func (p *Pool) Start(ctx context.Context) error {
	p.mutex.Lock()
	p.taken++
	p.mutex.Unlock()
	spare, err := p.start(ctx, "", true)
	if err != nil {
		p.discard(nil)
		return err
	}
	p.put(spare)
	return nil
}

// Render executes the templates of one volume with the values at hand, in order, and
// returns the results in the same order. The tenant is that of ctx (fairqueue.Tenant).
// The first template that fails ends the call with a template.FileError of its name.
//
// The error is template.ErrInvalid for a template that breaks a limit, and
// template.ErrUnavailable if it is not the template's fault.
func (p *Pool) Render(ctx context.Context, templates []template.Template, values template.Values) ([]template.Result, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	tenant := fairqueue.Tenant(ctx)
	if err := p.places.Acquire(ctx, tenant, fairqueue.Foreground, 1); errors.Is(err, fairqueue.ErrQueueFull) {
		return nil, fmt.Errorf("%w: wait for a render worker: %w", template.ErrUnavailable, err)
	} else if err != nil {
		return nil, fmt.Errorf("wait for a render worker: %w", err)
	}
	defer p.places.Release(tenant, 1)
	// Encoded only now: a request may have some MiB, and many calls may wait.
	payload, err := json.Marshal(newRequest(templates, values))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", template.ErrData, err)
	}
	if len(payload) > requestLimit {
		return nil, fmt.Errorf("%w: the templates and their secrets take more than %d MiB", template.ErrInvalid, requestLimit>>20)
	}
	for range attempts {
		results, err := p.attempt(ctx, tenant, templates, payload)
		if !errors.Is(err, errKilled) {
			return results, err
		}
		p.logger.Info("Render worker was killed; trying another")
	}
	return nil, fmt.Errorf("%w: %d render workers were killed, for example because the node has no memory", template.ErrUnavailable, attempts)
}

// attempt runs a request in one worker, and keeps the worker if it behaved.
func (p *Pool) attempt(ctx context.Context, tenant string, templates []template.Template, payload []byte) ([]template.Result, error) {
	worker, err := p.take(ctx, tenant)
	if err != nil {
		return nil, err
	}
	watch := &watch{limits: p.config.Limits, cpuTime: worker.cpuTime, resident: worker.resident}
	received := receiver{templates: templates, outputLimit: p.config.Limits.Output, known: map[template.Dependency]template.Dependency{}}
	err = worker.exchange(ctx, payload, watch, received.read)
	if err != nil && !isReported(err) {
		if reason := reasonOf(err); reason != "" {
			p.config.Killed(reason)
		}
	}
	if err != nil && !isReported(err) || worker.resident() > keepLimit {
		p.discard(worker)
	} else {
		p.put(worker)
	}
	if err != nil {
		return nil, &template.FileError{Name: templates[len(received.results)].Name, Err: err}
	}
	return received.results, nil
}

// receiver collects the replies to a request.
type receiver struct {
	templates   []template.Template
	results     []template.Result
	outputLimit int64
	output      int64 // bytes of all files so far
	// known holds each dependency once: hundreds of files may name the same ones.
	known map[template.Dependency]template.Dependency
}

// read reads the replies. On an error, results has those before the template that failed.
func (r *receiver) read(replies io.Reader) error {
	for _, t := range r.templates {
		payload, err := readFrame(replies, replyLimit)
		if err != nil {
			return err
		}
		decoded, err := decodeReply(payload)
		if err != nil {
			return err
		}
		result, err := decoded.result()
		if err == nil {
			err = template.CheckResult(t, result)
		}
		if err == nil {
			err = r.add(result)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// add keeps a result within the limits of a volume.
func (r *receiver) add(result template.Result) error {
	r.output += int64(len(result.Output))
	for _, file := range result.Files {
		r.output += int64(len(file.Content))
	}
	if r.output > r.outputLimit {
		return fmt.Errorf("%w: it and the files before it have more than %d bytes", template.ErrInvalid, r.outputLimit)
	}
	for _, dependencies := range [][]template.Dependency{result.Missing, result.Used} {
		for i, dependency := range dependencies {
			if _, isKnown := r.known[dependency]; !isKnown {
				r.known[dependency] = dependency
			}
			dependencies[i] = r.known[dependency]
		}
	}
	if err := limits.Dependencies.Check(len(r.known)); err != nil {
		return fmt.Errorf("%w: the templates of the volume together: %w; split the volume", template.ErrInvalid, err)
	}
	r.results = append(r.results, result)
	return nil
}
