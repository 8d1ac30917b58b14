package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// session is what the volumes of a pod share that log in the same way, or those of
// several pods: the means to log in, and the Vault tokens that this has brought.
type session struct {
	provider *Provider
	key      string
	// namespace is that of the pods.
	namespace string
	task      *task // maintain
	// checkpoint is the record. It has been that of a session before, if that is about
	// to end.
	checkpoint *checkpoint
	// turn holds one: whoever asks Vault for a token, or to renew it.
	turn chan struct{}

	mutex sync.Mutex // held for no longer than a look
	means means
	// serial counts the logins.
	serial int
	// grants are tokens that may still be good. The last is in use; those before it
	// hold leases until the volumes have new ones, and applications a while longer.
	grants []grant
	// volumes may be two of an id, while one takes the place of the other.
	volumes map[*volume]bool
	// readings are what pods that share the session were told; nil for a pod's own.
	// bearer is the id of the volume whose means a shared one has.
	readings *readings
	bearer   string
	// leftovers are leased answers of volumes whose Open failed, or that are opened
	// while they are open, for the next Open.
	leftovers map[string]answers
	revoke    bool // when the last volume is gone
	closed    bool
	settled   bool // its tokens are being revoked
	trouble   trouble
}

// grant is a Vault token in use.
type grant struct {
	Serial int
	Token  vault.Token
	Term   term
	Due    time.Time
	Since  time.Time // when Vault made the token
}

var (
	// ErrClosed is a volume that is gone.
	ErrClosed = errors.New("the volume is closed")
	errKept   = errors.New("the volume is not refreshed, and its Vault token has ended")
)

func newSession(p *Provider, key, namespace string) *session {
	s := &session{provider: p, key: key, namespace: namespace, turn: make(chan struct{}, 1), volumes: map[*volume]bool{}, leftovers: map[string]answers{}}
	s.checkpoint = p.records.checkpoint(namespace, sessionPrefix+key)
	s.task = newTask(namespace, guarded(p.logger, p.clock, s.maintain))
	return s
}

// acquire returns a token that is good, after a login if need be. One that may
// not wait for a login that failed lately gets its error.
func (s *session) acquire(ctx context.Context, urgent bool) (grant, error) {
	if g, ok := s.current(); ok {
		return g, nil
	}
	return s.replace(ctx, 0, urgent)
}

// replace returns another token than the one with a serial number, which Vault
// does not know any more.
func (s *session) replace(ctx context.Context, gone int, urgent bool) (grant, error) {
	if err := s.takeTurn(ctx); err != nil {
		return grant{}, err
	}
	defer s.endTurn()
	s.drop(gone)
	if g, ok := s.current(); ok {
		return g, nil
	}
	if err := s.mayLogIn(urgent); err != nil {
		return grant{}, err
	}
	g, err := s.logIn(ctx)
	if err != nil && ctx.Err() == nil {
		s.provider.schedule.wake(s.task, s.fail(err, time.Time{}))
	}
	return g, err
}

func (s *session) takeTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for another volume to log in: %w", ctx.Err())
	}
}

func (s *session) endTurn() { <-s.turn }

func (s *session) current() (grant, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.grants) == 0 {
		return grant{}, false
	}
	last := s.grants[len(s.grants)-1]
	return last, !last.Term.expired(s.provider.now())
}

// drop forgets a token that Vault does not know any more, and those that have
// ended by themselves.
func (s *session) drop(gone int) {
	s.mutex.Lock()
	now, before := s.provider.now(), len(s.grants)
	s.grants = slices.DeleteFunc(slices.Clone(s.grants), func(g grant) bool { return g.Serial == gone || g.Term.expired(now) })
	dropped := len(s.grants) != before
	s.mutex.Unlock()
	if dropped {
		s.save()
	}
}

// takeLeftovers returns what an Open of the volume that failed has left. Templates
// that fail again and again would otherwise make new credentials each time.
func (s *session) takeLeftovers(volumeID string) answers {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	left := answers{}
	for query, each := range s.leftovers[volumeID] {
		if !each.lease.expired(s.provider.now()) {
			left[query] = each
		}
	}
	delete(s.leftovers, volumeID)
	return left
}

// leaveOver keeps what the next Open of a volume may take up.
func (s *session) leaveOver(volumeID string, leased answers) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.leftovers[volumeID] == nil {
		s.leftovers[volumeID] = answers{}
	}
	maps.Copy(s.leftovers[volumeID], leased)
}

// fail notes why there is no token, or why it is not renewed, and returns when
// to try again. It logs what is news for volumes that have files: a pod that starts gets
// the error.
func (s *session) fail(err error, expiry time.Time) time.Time {
	s.mutex.Lock()
	news := s.trouble.add(err, s.provider.now(), expiry, s.provider.chance)
	retry, open := s.trouble.retry, s.openLocked()
	s.mutex.Unlock()
	if news && len(open) > 0 {
		s.provider.logger.Error(err, "Vault token not renewed; the files stay as they are", logVolumes, open)
	}
	s.save()
	return retry
}

// renewed notes that there is a good token, and logs it if that is news.
func (s *session) renewed(was trouble) {
	if was.err == nil {
		return
	}
	s.mutex.Lock()
	open := s.openLocked()
	s.mutex.Unlock()
	if len(open) > 0 {
		s.provider.logger.Info("Vault token renewed again", logVolumes, open)
	}
}

// openLocked are the ids of the volumes that have files.
func (s *session) openLocked() []string {
	return slices.DeleteFunc(s.idsLocked(), func(id string) bool { return !s.isOpenLocked(id) })
}

func (s *session) isOpenLocked(id string) bool {
	for v := range s.volumes {
		if v.id == id && v.isOpen.Load() {
			return true
		}
	}
	return false
}
