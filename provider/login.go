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
	Options  ClientOptions
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
		if !v.refresh.Disabled {
			return true
		}
	}
	return false
}

// logIn brings a new token. The turn is held.
func (s *session) logIn(ctx context.Context) (grant, error) {
	var token vault.Token
	var asked time.Time
	err := s.tryWays(ctx, func(with means) (err error) {
		asked = s.provider.now() // the TTL begins before the answer comes
		// In the foreground also for a refresh: a pod that starts waits for the turn.
		token, err = s.provider.clients.Login(vault.WithSharedCall(ctx), with.Endpoint, with.Options, with.Login)
		if err != nil {
			s.refused(with)
		}
		return err
	})
	if err != nil {
		return grant{}, err
	}
	return s.take(token, asked)
}

// take notes a token that was asked for at a time.
func (s *session) take(token vault.Token, asked time.Time) (grant, error) {
	s.mutex.Lock()
	s.serial++
	g := grant{Serial: s.serial, Token: token, Term: newTerm(asked, token.TTL, token.Renewable), Since: asked}
	now := s.provider.now()
	g.Due = notBefore(now.Add(shortestRest), g.Term.due(now, s.provider.chance))
	closed, with, was := s.closed, s.means, s.trouble
	if !closed {
		s.grants = append(s.grants, g)
		s.trouble = trouble{}
	}
	s.mutex.Unlock()
	if closed {
		// The last volume went while Vault made the token.
		s.provider.revocations.add(s.namespace, with, g)
		return grant{}, ErrClosed
	}
	s.save()
	s.renewed(was)
	if !g.Due.IsZero() {
		s.provider.schedule.wake(s.task, g.Due)
	}
	s.wakeVolumes(now)
	return g, nil
}

// wakeVolumes has the open volumes look for what they need.
func (s *session) wakeVolumes(now time.Time) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for v := range s.volumes {
		if v.isOpen.Load() {
			s.provider.schedule.wake(v.task, now)
		}
	}
}

// refused has a shared session try another pod's means next time.
func (s *session) refused(with means) {
	s.mutex.Lock()
	passesOn := s.readings != nil && s.means == with && !s.closed
	if passesOn {
		s.passOnLocked()
	}
	s.mutex.Unlock()
	if passesOn {
		s.save()
	}
}

// equip takes over fresh means of a volume to log in, and tries them if those
// before failed. A shared session keeps to one pod's, as long as they do.
func (s *session) equip(v *volume, m means) {
	s.mutex.Lock()
	isOthers := s.readings != nil && s.bearer != v.id && s.trouble.err == nil
	if s.means == m || s.closed || isOthers {
		s.mutex.Unlock()
		return
	}
	if s.readings != nil {
		s.bearer = v.id
	}
	s.means = m
	failed := s.trouble.err != nil
	s.trouble.retry = time.Time{}
	s.mutex.Unlock()
	s.save()
	if failed {
		s.provider.schedule.wake(s.task, s.provider.now())
	}
}
