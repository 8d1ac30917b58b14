package provider

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// Volume keeps the files of one volume up to date between Start and Close, or until the
// Manager shuts down. Its methods may be called concurrently. None but Close waits for the
// Sink, and none for Vault.
type Volume struct {
	manager            *Manager
	id, pod, namespace string
	sink               Sink
	policy             RefreshPolicy
	size               int64 // of the files in bytes; 0 for no limit
	since              bootTime

	// The commands to the goroutine, which wake announces.
	wake        chan struct{}
	request     atomic.Pointer[Request]
	isForced    atomic.Bool
	isWoken     atomic.Bool
	snapshot    atomic.Pointer[Status]
	queuedSince atomic.Int64 // a bootTime
	retained    atomic.Int64

	ctx       context.Context
	cancel    context.CancelFunc
	startOnce sync.Once
	closeOnce sync.Once
	done      chan struct{} // the goroutine has ended; nil before Start
	delay     time.Duration // before the first refresh

	// The goroutine owns the rest: that of Publish before Start, and run from then on.
	volumeState

	shared    *sharedSession // nil for none
	deps      dependencies
	files     []FileSpec
	failure   error // of anything
	hasWorked bool  // in this refresh
	unmounted retryState
	// hasFreshLogin says that the credentials have not been tried.
	hasFreshLogin atomic.Bool
	isUnsaved     bool
	savedHash     [sha256.Size]byte
}

// volumeState is the part of a volume that its record holds as it is.
type volumeState struct {
	Session *session
	// IsDirty says that the values or the files have changed since the last Replace.
	IsDirty bool
	// FileGeneration is that of the token in the files, if they show it.
	FileGeneration int
	Retry          retryState `json:",omitzero"` // of the volume as a whole
	Refreshed      bootTime   // without an error
}

func (m *Manager) newVolume(r Request, sink Sink) *Volume {
	v := &Volume{
		manager: m, id: r.VolumeID, pod: r.Pod, namespace: namespaceOf(r.Pod), sink: sink, policy: r.Refresh.withDefaults(), size: r.Size,
		since: m.now(), wake: make(chan struct{}, 1), deps: dependencies{}, files: r.Files,
	}
	v.Session = &session{manager: m, Config: loginConfig{r.Endpoint, r.Options, r.Login}, IsOnce: r.Refresh.Disabled}
	v.ctx, v.cancel = context.WithCancel(m.tenantContext(v.namespace))
	v.updateStatus(0)
	return v
}

// publish fetches and renders for the first time. Invalid templates cost no login.
func (v *Volume) publish(ctx context.Context) (files []RenderedFile, err error) {
	p := v.newPass(false, MinInterval)
	defer p.close()
	first, err := v.execute(ctx, nil)
	if err != nil {
		return nil, err
	}
	missing, names := p.missing(first)
	if err := p.checkDependencies(len(missing)); err != nil {
		return nil, &FileError{Name: names[len(names)-1], Err: err}
	}
	for _, each := range missing {
		p.origin.firstPass[each.Key] = true
	}
	var used map[template.Dependency]bool
	err = p.run(ctx, func() (err error) {
		files, used, err = p.render(ctx, first, nil)
		first = nil // of a second call, too much is known
		return err
	})
	if tokenErr := (*tokenError)(nil); errors.As(err, &tokenErr) {
		return nil, tokenErr.err
	}
	if err != nil {
		return nil, err
	}
	v.deps.accept(used, nil, v.manager.now())
	v.Refreshed = v.manager.now()
	return files, nil
}

// Start begins to refresh the volume, once. The files of Publish are attached by then.
func (v *Volume) Start() {
	v.startOnce.Do(func() {
		v.done = make(chan struct{})
		v.updateStatus(v.manager.now())
		v.manager.volumes.Go(v.run)
	})
}

// UpdateCredentials takes over what a republish brings: fresh tokens and certificates, and
// the files as the attributes describe them now. Files of other names are written soon.
func (v *Volume) UpdateCredentials(request Request) {
	v.request.Store(&request)
	v.poke()
}

// Refresh reads all static secrets soon.
func (v *Volume) Refresh() {
	v.isForced.Store(true)
	v.poke()
}

// Close ends the volume, and revokes the Vault token in the background. It waits for a
// call of the Sink in progress: the caller holds no lock that the Sink takes.
func (v *Volume) Close() {
	v.closeOnce.Do(func() {
		isUsed := true
		v.startOnce.Do(func() { isUsed = false })
		v.cancel()
		if isUsed {
			<-v.done
		}
		v.end(!isUsed)
	})
}

// end gives up the sessions. A token that no volume has used is revoked in any case.
func (v *Volume) end(isUnused bool) {
	v.cancel()
	if v.shared != nil {
		v.manager.leaveShared(v.shared, v, isUnused)
	}
	if isUnused || !v.policy.SkipRevoke {
		v.Session.revoke(v.namespace)
	}
}

// Status is a snapshot of the volume.
func (v *Volume) Status() Status {
	status := *v.snapshot.Load()
	if v.shared != nil {
		shared := v.shared.status()
		status.Shared, status.Err = &shared, firstError(status.Err, shared.Err)
	}
	if v.isWoken.Load() {
		status.next = v.manager.now()
	}
	status.Next, status.queuedSince = v.manager.timeOf(status.next), bootTime(v.queuedSince.Load())
	return status
}

// RetainedBytes is about how many bytes of memory the volume holds besides its files: the
// responses of Vault, the templates and the certificates.
func (v *Volume) RetainedBytes() int64 { return v.retained.Load() }

// poke lets the goroutine look at its commands, and at what is due.
func (v *Volume) poke() {
	v.isWoken.Store(true)
	notify(v.wake)
}

// run refreshes the volume when something is due, until it is closed or the manager shuts
// down.
func (v *Volume) run() {
	defer close(v.done)
	next := v.manager.now() + v.delay // what was due may be overdue
	for {
		// The timer runs before the status tells when it ends, since tests move the clock then.
		due := v.manager.after(next)
		v.updateStatus(next)
		select {
		case <-due:
		case <-v.wake:
		case <-v.manager.stopping.Done():
			v.takeRequest() // for the next process
			v.save()
			return
		case <-v.ctx.Done():
			return
		}
		v.updateStatus(v.manager.now())
		v.isWoken.Store(false)
		if !v.acquireTurn() {
			return
		}
		next = v.manager.now() + panicBackoff
		v.manager.guard(func() { next = v.refresh(v.ctx) })
		v.manager.refreshes.Release(v.namespace, 1)
	}
}

// acquireTurn waits for a place among the refreshes of the node. It reports false if the
// volume or the manager ends before.
func (v *Volume) acquireTurn() bool {
	v.queuedSince.Store(int64(v.manager.now()))
	defer v.queuedSince.Store(0)
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	defer context.AfterFunc(v.manager.stopping, cancel)()
	for v.manager.refreshes.Acquire(ctx, v.namespace, fairqueue.Background, 1) != nil {
		if ctx.Err() != nil {
			return false
		}
		select { // too many of the namespace wait
		case <-ctx.Done():
		case <-v.manager.clock.After(minBackoff):
		}
	}
	return true
}

// refresh does what is due, and returns when the next refresh is.
func (v *Volume) refresh(ctx context.Context) (next bootTime) {
	limited, cancel := context.WithTimeout(vault.WithBackground(ctx), v.manager.timeouts.refresh)
	defer cancel()
	v.hasWorked = false
	err := recovery.Do(func() error { return v.update(limited) })
	now := v.manager.now()
	switch {
	case ctx.Err() != nil:
		return 0 // it is closed
	case errors.Is(err, ErrClosed):
		v.unmounted.fail(err, now, 0, v.manager.jitter) // which is not the volume's failure
		return earliest(v.deps.due(now), v.Session.due(), v.unmounted.until)
	}
	v.unmounted = retryState{}
	if errors.Is(err, errTokenEnded) && v.deps.leases() == 0 {
		err = nil // the files hold nothing that expires
	}
	next = v.finish(err)
	v.save()
	return next
}

func (v *Volume) update(ctx context.Context) (err error) {
	isForced := v.isForced.Swap(false)
	defer func() {
		if err != nil && isForced {
			v.isForced.Store(true) // the next attempt is forced as well
		}
	}()
	v.takeRequest()
	if v.policy.Disabled && v.Session.Generation == 0 {
		return nil // it was taken over, and its files stay
	}
	v.Session.maintain(ctx)
	maxAge := v.policy.StaticInterval
	if isForced {
		maxAge = 0
	}
	p := v.newPass(true, maxAge)
	defer p.close()
	return p.run(ctx, func() error {
		tokenErr, err := p.refreshDue(ctx, isForced)
		if err != nil || v.policy.Disabled {
			return firstError(err, tokenErr)
		}
		if v.showsToken() && v.FileGeneration != p.token.Generation {
			v.IsDirty = true
		}
		if v.IsDirty {
			v.hasWorked = true
			return firstError(p.rewrite(ctx), tokenErr)
		}
		return tokenErr
	})
}

// takeRequest takes over the last republish.
func (v *Volume) takeRequest() {
	r := v.request.Swap(nil)
	if r == nil {
		return
	}
	v.hasFreshLogin.Store(v.Session.setConfig(loginConfig{r.Endpoint, r.Options, r.Login}))
	isSame := func(a, b FileSpec) bool { return a.Token == b.Token && a.Template.Name == b.Template.Name }
	if !slices.EqualFunc(v.files, r.Files, isSame) {
		v.files, v.IsDirty = r.Files, true
	}
}

// finish notes the result of a refresh, and returns when the next one is due.
func (v *Volume) finish(err error) bootTime {
	now, before := v.manager.now(), v.failure
	v.failure = firstError(err, v.deps.err(), v.Session.Retry.err)
	if v.failure == nil && (v.hasWorked || before != nil) {
		v.Refreshed = now
	}
	v.updateStatus(now)
	v.sink.Refreshed(before, v.failure)
	v.logTransition(before)
	if err == nil {
		v.Retry = retryState{}
		return earliest(v.deps.due(0), v.Session.due())
	}
	v.Retry.fail(err, now, 0, v.manager.jitter)
	// What is overdue waits for the next attempt.
	return earliest(v.deps.due(now), v.Session.due(), v.Retry.until)
}

// logTransition logs when a failure begins, becomes another one, or ends.
func (v *Volume) logTransition(before error) {
	logger := v.manager.logger.WithValues(logVolumeID, v.id, logPod, v.pod)
	var panicked *recovery.PanicError
	switch {
	case SameKind(before, v.failure):
		return
	case v.failure == nil:
		logger.Info("Volume refreshed again")
		return
	case errors.As(v.failure, &panicked):
		logger = logger.WithValues(logStack, panicked.Stack)
	}
	logger.Error(v.failure, "Volume not refreshed; its files stay as they are")
}

// needsOwnToken reports whether a shared session is not enough.
func (v *Volume) needsOwnToken() bool {
	return v.shared == nil || v.showsToken() || v.deps.leases() > 0
}

func (v *Volume) showsToken() bool {
	return slices.ContainsFunc(v.files, func(f FileSpec) bool { return f.Token })
}

func (v *Volume) updateStatus(next bootTime) {
	status := &Status{
		VolumeID: v.id, Pod: v.pod, Session: v.Session.status(), Refreshed: v.manager.timeOf(v.Refreshed), Err: v.failure, Leases: v.deps.leases(),
		Unsaved: v.isUnsaved, since: cmp.Or(v.Refreshed, v.since), next: next,
	}
	for _, each := range v.deps.sorted() {
		status.Secrets = append(status.Secrets, SecretStatus{
			Path: each.displayPath(), Verb: each.Key.Verb, At: v.manager.timeOf(each.Due),
			Expires: v.manager.timeOf(each.Lease.ExpireTime), Renewable: each.Lease.Renewable, Err: each.err(),
		})
	}
	v.snapshot.Store(status)
}

func (v *Volume) updateRetained() {
	total := v.deps.memory()
	for _, file := range v.files {
		total += int64(len(file.Template.Text) + len(file.Template.Name))
	}
	endpoint := v.Session.Config.Endpoint
	v.retained.Store(total + int64(len(endpoint.CACert)+len(endpoint.ClientCert)+len(endpoint.ClientKey)))
}
