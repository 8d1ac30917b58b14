package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

const (
	// maxBusy is how many calls run at once. A tenant runs at most half of them, rounded
	// up. As many workers run or are kept, beside a spare one.
	maxBusy = 3
	// attempts is in how many workers a call runs if each of them is killed.
	attempts = maxBusy + 1
)

// Config is for New.
type Config struct {
	// Program is the path of the statically linked program to start with the argument
	// Command. Default the program of this process.
	Program string
	Limits  Limits
	// Killed is called when a worker is killed because of its templates, or by something
	// else; nil for nobody. It may be called concurrently, and must not block.
	Killed func(Reason)
}

// Pool renders templates in workers. It keeps the workers of recent tenants, and one for
// the next new tenant. It may be used concurrently, and implements provider.Renderer.
type Pool struct {
	logger  klog.Logger
	config  Config
	limiter *fairqueue.Limiter
	started atomic.Uint32 // workers so far

	// ctx ends with Stop, and all workers with it. background counts them.
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup

	// A worker belongs to idle, or to the call that took it, which counts in busy.
	mutex       sync.Mutex
	busy        int
	idle        []*worker // the last is the one used last
	spare       *worker   // one that has served nobody; nil while it is started
	startsSpare bool
	all         map[*worker]bool // that exist, for Stop
}

// New returns a pool without a worker. Stop ends it.
func New(logger klog.Logger, config Config) *Pool {
	if config.Program == "" {
		config.Program, _ = os.Executable() // an empty path fails in Start
	}
	if config.Killed == nil {
		config.Killed = func(Reason) {}
	}
	config.Limits = config.Limits.withDefaults()
	p := &Pool{logger: logger, config: config, limiter: fairqueue.New(maxBusy), all: map[*worker]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Start starts the first worker, and fails if it cannot be confined. Without it, the first
// call finds out.
func (p *Pool) Start(ctx context.Context) error {
	first, err := p.start(ctx)
	if err != nil {
		return err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.spare = first
	return nil
}

// startSpare starts a worker for the next new tenant. If that fails, the tenant's call
// starts one itself, and reports the error.
func (p *Pool) startSpare() {
	next, _ := p.start(p.ctx)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.spare, p.startsSpare = next, false
}

// start starts a worker that ends with the pool at the latest.
func (p *Pool) start(ctx context.Context) (*worker, error) {
	p.mutex.Lock()
	if p.ctx.Err() != nil {
		p.mutex.Unlock()
		return nil, errStopped
	}
	p.background.Add(1) // before Stop waits
	p.mutex.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	started, err := startWorker(ctx, p.config.Program, []string{Command}, firstID+(p.started.Add(1)-1)%idCount)
	if err != nil {
		p.background.Done()
		return nil, err
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.all[started] = true
	if p.ctx.Err() != nil {
		started.kill()
	}
	go func() {
		defer p.background.Done()
		<-started.exited
		p.mutex.Lock()
		defer p.mutex.Unlock()
		delete(p.all, started)
	}()
	return started, nil
}

// Stop kills all workers and waits until they are gone, for at most the time that ctx
// leaves. Calls that run get template.ErrUnavailable.
func (p *Pool) Stop(ctx context.Context) error {
	p.mutex.Lock()
	p.cancel()
	p.idle = nil
	for w := range p.all {
		w.kill()
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

// Render executes the templates of one volume with the values at hand, in order, and
// returns the results in the same order. The tenant is that of ctx (fairqueue.Tenant).
// The first template that fails ends the call with a template.FileError.
//
// The error is template.ErrInvalid for a template that breaks a limit, and
// template.ErrUnavailable if it is not the template's fault.
func (p *Pool) Render(ctx context.Context, templates []template.Template, values template.Values) ([]template.Result, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	tenant := fairqueue.Tenant(ctx)
	if err := p.limiter.Acquire(ctx, tenant, fairqueue.Foreground, 1); errors.Is(err, fairqueue.ErrQueueFull) {
		return nil, fmt.Errorf("%w: wait for a render worker: %w", template.ErrUnavailable, err)
	} else if err != nil {
		return nil, fmt.Errorf("wait for a render worker: %w", err)
	}
	defer p.limiter.Release(tenant, 1)
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
	w, err := p.take(ctx, tenant)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", template.ErrUnavailable, err)
	}
	received := newReceiver(templates, p.config.Limits.Output)
	err = w.roundTrip(ctx, payload, p.config.Limits, received.read)
	if reason := reasonOf(err); reason != "" {
		p.config.Killed(reason)
	}
	p.put(w, (err == nil || isReported(err)) && w.resident() <= keepLimit)
	if err != nil {
		return nil, &template.FileError{Name: templates[len(received.results)].Name, Err: err}
	}
	return received.results, nil
}

// take returns a worker that has served nobody but the tenant. The caller gives it to put.
func (p *Pool) take(ctx context.Context, tenant string) (*worker, error) {
	w := p.takeStarted(tenant)
	if w == nil {
		var err error
		if w, err = p.start(ctx); err != nil {
			p.put(nil, false)
			return nil, err
		}
	}
	w.tenant = tenant
	return w, nil
}

// takeStarted returns a worker of the tenant, or the spare one. It makes way for a new one.
func (p *Pool) takeStarted(tenant string) *worker {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.busy++
	if i := slices.IndexFunc(p.idle, func(w *worker) bool { return w.tenant == tenant }); i >= 0 {
		return p.removeIdle(i)
	}
	if p.busy+len(p.idle) > maxBusy {
		p.removeIdle(0).kill()
	}
	spare := p.spare
	p.spare = nil
	if !p.startsSpare && p.ctx.Err() == nil {
		p.startsSpare = true
		p.background.Go(p.startSpare)
	}
	return spare
}

// removeIdle is called with the mutex held.
func (p *Pool) removeIdle(i int) *worker {
	w := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	w.expiry.Stop() // expire does nothing if it is too late for that
	return w
}

// put keeps a worker for the tenant's next call, or kills it. It is nil if none started.
func (p *Pool) put(w *worker, keep bool) {
	if w != nil && !keep {
		w.end()
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.busy--
	if keep && p.ctx.Err() == nil {
		p.idle = append(p.idle, w)
		w.expiry = time.AfterFunc(p.config.Limits.Idle, func() { p.expire(w) })
	}
}

func (p *Pool) expire(w *worker) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if i := slices.Index(p.idle, w); i >= 0 {
		p.removeIdle(i).kill()
	}
}

// receiver collects the replies to a request, within the limits of a volume.
type receiver struct {
	templates   []template.Template
	results     []template.Result
	outputLimit int64
	output      int64 // bytes of all files so far
	// known holds each dependency once: hundreds of files may name the same ones.
	known map[template.Dependency]template.Dependency
}

func newReceiver(templates []template.Template, outputLimit int64) *receiver {
	return &receiver{templates: templates, outputLimit: outputLimit, known: map[template.Dependency]template.Dependency{}}
}

// read reads the replies. On an error, results has those before the template that failed.
func (r *receiver) read(replies io.Reader) error {
	for _, t := range r.templates {
		payload, err := readFrame(replies, replyLimit)
		if err != nil {
			return err
		}
		result, err := decodeReply(payload)
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

func (r *receiver) add(result template.Result) error {
	r.output += outputSize(result)
	if r.output > r.outputLimit {
		return newWorkerError(Output, "it and the files before it have more than %d bytes", r.outputLimit)
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
