package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// means are what a login takes.
type means struct {
	Endpoint Endpoint
	Options  Options
	Login    Login
}

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

// mayLogIn says why not, if not: nobody would use the token, or Vault has refused
// the last login and it is early for another. A pod that starts need not wait.
func (s *session) mayLogIn(urgent bool) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.closed {
		return ErrClosed
	}
	if urgent {
		return nil
	}
	if s.serial > 0 && !s.refreshesLocked() {
		return errKept
	}
	if s.trouble.retry.After(s.provider.now()) {
		return s.trouble.err
	}
	return nil
}

func (s *session) refreshesLocked() bool {
	for v := range s.volumes {
		if !v.refresh.Never {
			return true
		}
	}
	return false
}

// logIn brings a new token. The turn is held.
func (s *session) logIn(ctx context.Context) (grant, error) {
	var token vault.Token
	err := s.tryWays(ctx, func(with means) (err error) {
		// In the foreground also for a refresh: a pod that starts waits for the turn.
		token, err = s.provider.servers.Login(vault.Foreground(ctx), with.Endpoint, with.Options, with.Login)
		if err != nil {
			s.refused(with)
		}
		return err
	})
	if err != nil {
		return grant{}, err
	}
	return s.take(token)
}

func (s *session) take(token vault.Token) (grant, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := s.provider.now()
	s.serial++
	g := grant{Serial: s.serial, Token: token, Term: newTerm(now, token.TTL, token.Renewable), Since: now}
	g.Due = notBefore(now.Add(shortestRest), g.Term.due(now, s.provider.chance))
	if s.closed {
		// The last volume went while Vault made the token.
		s.provider.revocations.add(s.namespace, s.means, g)
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
	for v := range s.volumes {
		if v.isOpen.Load() {
			s.provider.schedule.wake(v.task, now)
		}
	}
}

// refused has a shared session try another pod's means next time.
func (s *session) refused(with means) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.readings != nil && s.means == with && !s.closed {
		s.passOnLocked()
	}
}

// equip takes over fresh means of a volume to log in, and tries them if those
// before failed. A shared session keeps to one pod's, as long as they do.
func (s *session) equip(v *volume, m means) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.means == m || s.closed {
		return
	}
	if s.readings != nil {
		if s.bearer != v.id && s.trouble.err == nil {
			return
		}
		s.bearer = v.id
	}
	s.means = m
	s.saveLocked()
	if s.trouble.err == nil {
		return
	}
	s.trouble.retry = time.Time{}
	s.provider.schedule.wake(s.task, s.provider.now())
}
