package provider

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// maintainTimeout bounds a renewal or a login in the background.
const maintainTimeout = 30 * time.Second

// maintain keeps the session's token alive: it renews it, and replaces it before
// its end. It returns when it is due again.
func (s *session) maintain(ctx context.Context) time.Time {
	ctx, cancel := context.WithTimeout(vault.WithBackground(ctx), maintainTimeout)
	defer cancel()
	if s.takeTurn(ctx) != nil {
		return s.provider.now().Add(firstBackoff)
	}
	defer s.endTurn()
	s.drop(0)
	g, ok := s.current()
	if !ok && !s.isWanted() {
		return time.Time{}
	}
	if !ok {
		return s.succeed(ctx, g)
	}
	if g.Due.IsZero() || g.Due.After(s.provider.now()) {
		return g.Due
	}
	if g.Term.Renewable {
		return s.renew(ctx, g)
	}
	return s.succeed(ctx, g)
}

// isWanted is false of a session that no volume has needed so far.
func (s *session) isWanted() bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.isWantedLocked()
}

func (s *session) isWantedLocked() bool { return s.serial > 0 || s.trouble.err != nil }

func (s *session) renew(ctx context.Context, g grant) time.Time {
	renewed, asked, err := s.renewToken(ctx, g)
	switch {
	case err == nil:
		g.Term = g.Term.prolonged(asked, renewed.TTL, renewed.Renewable)
	case errors.Is(err, vault.ErrTokenGone):
		s.drop(g.Serial)
		return s.succeed(ctx, g)
	case errors.Is(err, ErrRefused):
		// A role may withhold the policy "default", which allows renewals.
		g.Term.Renewable = false
	default:
		return s.failed(ctx, err, g.Term.Expires)
	}
	g.Due = g.Term.due(s.provider.now(), s.provider.chance)
	s.update(g)
	return g.Due
}

// failed notes a failure, unless the session was ended meanwhile, or the process is:
// nobody is to hear of that.
func (s *session) failed(ctx context.Context, err error, expiry time.Time) time.Time {
	if errors.Is(ctx.Err(), context.Canceled) {
		return s.provider.now().Add(firstBackoff)
	}
	return s.fail(err, expiry)
}

// renewToken returns when it asked as well: the TTL begins before the answer comes.
func (s *session) renewToken(ctx context.Context, g grant) (renewed vault.Token, asked time.Time, err error) {
	err = s.tryWays(ctx, func(with means) error {
		client, err := s.provider.clients.Client(ctx, with.Endpoint, with.Options, g.Token)
		if err != nil {
			return err
		}
		asked = s.provider.now()
		renewed, err = client.RenewToken(vault.WithSharedCall(ctx)) // a pod that starts waits for the turn
		return err
	})
	return renewed, asked, err
}

// update stores what became of a token.
func (s *session) update(g grant) {
	s.mutex.Lock()
	s.grants = slices.Clone(s.grants)
	for i := range s.grants {
		if s.grants[i].Serial == g.Serial {
			s.grants[i] = g
		}
	}
	was := s.trouble
	s.trouble = trouble{}
	s.mutex.Unlock()
	s.save()
	s.renewed(was)
}

func (s *session) retry() time.Time {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.trouble.retry
}

// succeed logs in for a token that follows an old one, whose leases stay until
// the old one ends by itself: the volumes replace them first.
func (s *session) succeed(ctx context.Context, old grant) time.Time {
	switch err := s.mayLogIn(false); {
	case errors.Is(err, ErrClosed), errors.Is(err, errKept):
		return time.Time{} // nobody needs another token
	case err != nil:
		return s.retry()
	}
	next, err := s.logIn(ctx)
	if err != nil {
		return s.failed(ctx, err, old.Term.Expires)
	}
	return next.Due
}
