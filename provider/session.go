package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// session is what the volumes of a pod share that log in the same way: the means
// to log in, and the Vault tokens that this has brought.
type session struct {
	provider *Provider
	key      string
	task     *task // maintain
	// turn holds one: whoever asks Vault for a token, or to renew it.
	turn chan struct{}

	mutex sync.Mutex // held for no longer than a look
	means means
	// serial counts the logins.
	serial int
	// grants are tokens that may still be good. The last is in use; those before it
	// hold leases until the volumes have new ones, and applications a while longer.
	grants  []grant
	volumes map[string]*volume
	// leftovers are leased answers of volumes whose Open failed, for its repetition.
	leftovers map[string]answers
	revoke    bool // when the last volume is gone
	closed    bool
	trouble   trouble
}

// means are what a login takes.
type means struct {
	Endpoint Endpoint
	Options  Options
	Login    Login
}

// grant is a Vault token in use.
type grant struct {
	Serial int
	Token  vault.Token
	Term   term
	Due    time.Time
}

var (
	// ErrClosed is a volume that is gone.
	ErrClosed = errors.New("the volume is closed")
	errKept   = errors.New("the volume is not refreshed, and its Vault token has ended")
)

// sessionKey names what volumes must have in common to share a token. It leaves
// certificates and service-account tokens out, which change during a pod's life.
func sessionKey(r Request) string {
	parts, err := json.Marshal([]any{
		r.PodUID, r.Endpoint.Address, r.Endpoint.Proxy, r.Endpoint.ServerName, r.Endpoint.SkipVerify, r.Options.Namespace,
		r.Login.Mount, r.Login.Role, r.Login.Audience, r.Login.RoleID,
	})
	if err != nil {
		panic(err) // strings and a bool cannot fail
	}
	return hash(parts)
}

// hash makes a key for the store of something that has any length and characters.
func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

func newSession(p *Provider, key string) *session {
	s := &session{provider: p, key: key, turn: make(chan struct{}, 1), volumes: map[string]*volume{}, leftovers: map[string]answers{}}
	s.task = newTask(s.maintain)
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
		return fmt.Errorf("wait for another volume of the pod to log in: %w", ctx.Err())
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
	defer s.mutex.Unlock()
	now := s.provider.now()
	var good []grant
	for _, g := range s.grants {
		if g.Serial != gone && !g.Term.expired(now) {
			good = append(good, g)
		}
	}
	if len(good) != len(s.grants) {
		s.grants = good
		s.saveLocked()
	}
}

// mayLogIn says why not, if not: nobody would use the token, or Vault has refused
// the last login and it is early for another.
func (s *session) mayLogIn(urgent bool) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.serial > 0 && !s.refreshesLocked() {
		return errKept
	}
	if !urgent && s.trouble.retry.After(s.provider.now()) {
		return s.trouble.err
	}
	return nil
}

func (s *session) refreshesLocked() bool {
	for _, v := range s.volumes {
		if !v.refresh.Never {
			return true
		}
	}
	return false
}

// logIn brings a new token. The turn is held.
func (s *session) logIn(ctx context.Context) (grant, error) {
	s.mutex.Lock()
	with := s.means
	s.mutex.Unlock()
	brought, err := s.provider.servers.Login(ctx, with.Endpoint, with.Options, with.Login)
	if err != nil {
		return grant{}, err
	}
	defer brought.Close()
	return s.take(brought.Token())
}

func (s *session) take(token vault.Token) (grant, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := s.provider.now()
	s.serial++
	g := grant{Serial: s.serial, Token: token, Term: newTerm(now, token.TTL, token.Renewable)}
	g.Due = g.Term.due(now, s.provider.chance)
	if s.closed {
		// The last volume went while Vault made the token.
		s.provider.revocations.add(s.means, g)
		return grant{}, ErrClosed
	}
	s.grants = append(s.grants, g)
	s.recoverLocked()
	s.saveLocked()
	if !g.Due.IsZero() {
		s.provider.schedule.wake(s.task, g.Due)
	}
	s.wakeLocked(now)
	return g, nil
}

// wakeLocked has the open volumes look for what they need.
func (s *session) wakeLocked(now time.Time) {
	for _, v := range s.volumes {
		if v.isOpen.Load() {
			s.provider.schedule.wake(v.task, now)
		}
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

// equip takes over fresh means to log in, and tries them if those before failed.
func (s *session) equip(m means) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.means == m || s.closed {
		return
	}
	s.means = m
	s.saveLocked()
	if s.trouble.err == nil {
		return
	}
	s.trouble.retry = time.Time{}
	s.provider.schedule.wake(s.task, s.provider.now())
}

// fail notes why there is no token, or why it is not renewed, and returns when
// to try again.
func (s *session) fail(err error, expiry time.Time) time.Time {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.trouble.add(err, s.provider.now(), expiry, s.provider.chance) {
		s.provider.logger.Error(err, "Vault token not renewed; the files stay as they are", logVolumes, slices.Sorted(maps.Keys(s.volumes)))
	}
	return s.trouble.retry
}

func (s *session) recoverLocked() {
	if s.trouble.over() {
		s.provider.logger.Info("Vault token renewed again", logVolumes, slices.Sorted(maps.Keys(s.volumes)))
	}
}
