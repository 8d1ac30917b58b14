package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/recovery"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// The keys of log lines.
const (
	logVolumeID  = "volumeID"
	logPod       = "pod"
	logNamespace = "namespace"
	logStack     = "stack"
)

const (
	// refreshWorkers limits how many volumes are refreshed at a time, and refreshShare those
	// of one namespace. They mostly wait for Vault.
	refreshWorkers, refreshShare = 64, 16
	// takeOverSpread is the time over which the volumes of a node log in that have no
	// record.
	takeOverSpread = 5 * time.Second
	// panicBackoff is the time between a panic outside of a request and the next attempt.
	panicBackoff = time.Minute
)

// timeouts limit the background.
type timeouts struct {
	// refresh is for one refresh, and fetch for its requests before the files are written.
	// The files of candidates get half of what is left.
	refresh, fetch time.Duration
	// request is for one secret: a secrets engine that hangs must not take the time of the
	// others.
	request time.Duration
}

// Config is what a Manager works with.
type Config struct {
	Logger   klog.Logger
	Clients  *vault.ClientPool
	Renderer Renderer
	// Store keeps the tokens that wait for their revocation, and the shared sessions.
	Store Store
	// Clock decides what is due.
	Clock clock.Clock
	// Uptime is the time since the node booted, suspended time included (CLOCK_BOOTTIME):
	// records hold deadlines in it, since nobody sets it. If it is nil, Clock is used.
	Uptime func() time.Duration
	// Revoked is told the result of each token of a volume that is gone; nil for nobody.
	Revoked func(err error)
	// Sharing defaults to ShareNothing.
	Sharing Sharing
}

// Manager makes volumes, and keeps what they share: the tokens that wait for their
// revocation, and the sessions of shared logins. It may be used concurrently.
//
// Locks and their order: Manager.mutex, sharedSession.mutex; these are never taken with
// one of the others, which are taken alone: kvCache.mutex, revocations.mutex, records.mutex.
// No lock is rejected during a request, an execution of templates, an encoding, or a call of
// Sink, Store or Config.Revoked.
type Manager struct {
	logger   klog.Logger
	clients  *vault.ClientPool
	renderer Renderer
	clock    clock.Clock
	started  time.Time     // of this process
	uptime   time.Duration // of the node by then
	jitter   jitter
	timeouts timeouts
	sharing  Sharing

	records     *records
	revocations *revocations
	refreshes   *fairqueue.Limiter
	volumes     sync.WaitGroup  // their goroutines, and those of shared sessions
	stopping    context.Context // ends when Shutdown begins
	stop        context.CancelFunc
	ctx         context.Context // ends when Shutdown waits no longer
	cancel      context.CancelFunc

	mutex  sync.Mutex
	shared map[string]*sharedSession // by sharingKey
}

// New returns a Manager without volumes. Shutdown ends it.
func New(c Config) *Manager {
	m := &Manager{
		logger: c.Logger, clients: c.Clients, renderer: c.Renderer, clock: c.Clock, jitter: rand.Float64, sharing: c.Sharing,
		timeouts:  timeouts{refresh: 90 * time.Second, fetch: time.Minute, request: 30 * time.Second},
		records:   &records{logger: c.Logger, store: c.Store, owners: map[string]recordOwner{}, sizes: map[string]int{}},
		refreshes: fairqueue.NewWithShare(refreshWorkers, refreshShare), shared: map[string]*sharedSession{},
	}
	m.started = m.clock.Now()
	m.uptime = time.Duration(m.started.UnixNano())
	if c.Uptime != nil {
		m.uptime = c.Uptime()
	}
	m.stopping, m.stop = context.WithCancel(context.Background())
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.revocations = newRevocations(m, c.Revoked)
	return m
}

func (m *Manager) now() bootTime { return m.uptime + m.clock.Since(m.started) }

// timeOf is for people.
func (m *Manager) timeOf(t bootTime) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return m.clock.Now().Add(t - m.now())
}

// Publish logs in, reads and renders. It returns the files in the order of request.Files
// and a volume, which is refreshed from Start on. After an error, nothing is left behind.
func (m *Manager) Publish(ctx context.Context, request Request, sink Sink) (*Volume, []RenderedFile, error) {
	v := m.newVolume(request, sink)
	if key := m.sharingKey(v.Session.Config, v.policy); key != "" {
		v.shared = m.joinShared(v, key)
	}
	var files []RenderedFile
	err := recovery.Do(func() (err error) {
		files, err = v.publish(fairqueue.WithTenant(ctx, v.namespace))
		return err
	})
	if err != nil {
		v.Close()
		return nil, nil, err
	}
	v.save()
	return v, files, nil
}

// TakeOver returns a volume that is mounted and has no record. It sends no request: after
// Start, the volume logs in and is refreshed within some seconds.
func (m *Manager) TakeOver(request Request, sink Sink) *Volume {
	m.logger.Info("Volume has no record; it logs in again", logVolumeID, request.VolumeID, logPod, request.Pod)
	v := m.newVolume(request, sink)
	if key := m.sharingKey(v.Session.Config, v.policy); key != "" {
		v.shared = m.joinShared(v, key)
	}
	v.IsDirty, v.delay = true, m.jitter.scale(takeOverSpread, 0, 1)
	return v
}

// RestoreSessions takes over the revocations and shared sessions that the previous process
// left. It sends no request, and is called once, before anything else. If ctx ends before,
// its error is returned, and the records stay.
func (m *Manager) RestoreSessions(ctx context.Context) error {
	if err := m.restoreShared(ctx); err != nil {
		return err
	}
	return m.revocations.restore(ctx)
}

// Restore returns a volume of the previous process by its half of the record. It sends no
// request; the volume is refreshed from Start on. After an error the driver deletes the
// record, and uses TakeOver at the kubelet's next call.
func (m *Manager) Restore(record []byte, sink Sink) (*Volume, error) {
	r := &volumeRecord{}
	if err := decode(record, r); err != nil {
		return nil, fmt.Errorf("restore the volume: %w", err)
	}
	v := m.restoreVolume(r, sink)
	v.savedHash = sha256.Sum256(record)
	return v, nil
}

// FinishRestore revokes the tokens of shared sessions that no restored volume uses.
func (m *Manager) FinishRestore() {
	var unused []*sharedSession
	m.mutex.Lock()
	for key, each := range m.shared {
		if len(each.members) == 0 {
			unused = append(unused, each)
			delete(m.shared, key)
		}
	}
	m.mutex.Unlock()
	for _, each := range unused {
		each.end()
	}
}

// Shutdown lets refreshes in progress finish, since a credential that Vault has just
// issued would be lost otherwise, and revokes what is due. The volumes stay for the next
// process. When ctx ends, requests in flight are cancelled.
func (m *Manager) Shutdown(ctx context.Context) {
	defer m.clients.Close()
	defer m.cancel()
	m.stop()
	defer context.AfterFunc(ctx, m.cancel)()
	m.volumes.Wait()
	m.revocations.running.Wait()
}

// Stats sums the node up, given the status of each of its volumes.
func (m *Manager) Stats(volumes []Status) Stats {
	s := Stats{Volumes: len(volumes), PendingRevocations: m.revocations.pending(), BreakerOpen: m.clients.BreakerOpen()}
	now, namespaces := m.now(), map[string]bool{}
	for _, v := range volumes {
		s.Leases += v.Leases
		s.addSession(v.Session)
		if v.Shared != nil {
			s.VolumesSharing++
		}
		if v.Unsaved {
			namespaces[namespaceOf(v.Pod)] = true
		}
		if v.Err != nil {
			s.Failing++
			s.OldestFailure = max(s.OldestFailure, now-v.since)
		}
		if v.queuedSince != 0 {
			s.QueueLag = max(s.QueueLag, now-v.queuedSince)
		}
	}
	s.Unsaved = len(namespaces)
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, each := range m.shared {
		if status := each.snapshot.Load().status; status.isUsed() {
			s.addSession(status)
			s.SessionsShared++
		}
	}
	return s
}

func (s *Stats) addSession(session SessionStatus) {
	if !session.isUsed() {
		return
	}
	s.Sessions++
	if session.Err != nil {
		s.SessionsFailing++
	}
}

// tenantContext is for the background work of a namespace.
func (m *Manager) tenantContext(namespace string) context.Context {
	return fairqueue.WithTenant(m.ctx, namespace)
}

// after is ready at a time, and never at 0.
func (m *Manager) after(at bootTime) <-chan time.Time {
	if at == 0 {
		return nil
	}
	for {
		now := m.now()
		if at <= now {
			ready := make(chan time.Time)
			close(ready)
			return ready
		}
		// If a test steps its clock before the timer exists, the timer is late.
		if timer := m.clock.After(at - now); m.now()-now < 100*time.Millisecond {
			return timer
		}
	}
}

// guard turns a panic into a log line: volumes of other tenants go on.
func (m *Manager) guard(work func()) {
	err := recovery.Do(func() error {
		work()
		return nil
	})
	if panicked := (*recovery.PanicError)(nil); errors.As(err, &panicked) {
		m.logger.Error(err, "Background work failed; it is tried again", logStack, panicked.Stack)
	}
}

// notify wakes the reader of a channel with a buffer of one.
func notify(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// hash makes a key for the store of any text.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}
