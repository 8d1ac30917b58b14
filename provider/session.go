package provider

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// loginConfig is where and how a session logs in.
type loginConfig struct {
	Endpoint Endpoint
	Options  ClientOptions
	Login    Credentials
}

// issuedToken is a Vault token in use.
type issuedToken struct {
	Generation int // counts the logins of the session
	Token      vault.Token
	Lease      lease
	IssuedAt   bootTime
	Due        bootTime // it is renewed or replaced
}

// session is a login to Vault. It has no lock: the goroutine of the volume owns it, or
// whoever has the turn of a sharedSession. A record holds the exported fields.
type session struct {
	Config loginConfig
	// IsOnce says that no second token follows the first one.
	IsOnce     bool
	Generation int
	// Tokens may still be valid. The last one is current. Those before it hold leases until
	// the volume has new ones, and applications use those for a while longer.
	Tokens []issuedToken
	Retry  retryState `json:",omitzero"`

	manager *Manager
	// revision counts the changes of what the record holds.
	revision int
}

// tokenError is why there is no token. What needs one stays due.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

var errTokenEnded = errors.New("the volume is not refreshed, and its Vault token has expired")

// maintainTimeout limits a renewal of the token, or a login in the background.
const maintainTimeout = 30 * time.Second

func (s *session) current() (issuedToken, bool) {
	if len(s.Tokens) == 0 {
		return issuedToken{}, false
	}
	last := s.Tokens[len(s.Tokens)-1]
	return last, !last.Lease.isExpired(s.manager.now())
}

// token returns the current token, and logs in if there is none. In the background, it
// returns the error of the last login until the next one is due.
func (s *session) token(ctx context.Context, isBackground bool) (issuedToken, error) {
	if current, ok := s.current(); ok {
		return current, nil
	}
	switch {
	case s.IsOnce && s.Generation > 0:
		return issuedToken{}, &tokenError{errTokenEnded}
	case isBackground && s.Retry.until > s.manager.now():
		return issuedToken{}, &tokenError{s.Retry.err}
	}
	return s.login(ctx, 0)
}

// invalidate drops a token that Vault does not know, and those that have expired.
func (s *session) invalidate(generation int) {
	now := s.manager.now()
	before := len(s.Tokens)
	s.Tokens = slices.DeleteFunc(s.Tokens, func(t issuedToken) bool { return t.Generation == generation || t.Lease.isExpired(now) })
	s.revision += before - len(s.Tokens)
}

// maintain renews the token when it is due, or replaces it before it expires. The session
// keeps the error.
func (s *session) maintain(ctx context.Context) {
	s.invalidate(0)
	if due := s.due(); due == 0 || due > s.manager.now() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maintainTimeout)
	defer cancel()
	current, ok := s.current()
	if ok && current.Lease.Renewable {
		s.renew(ctx, current)
		return
	}
	_, _ = s.login(ctx, current.Lease.ExpireTime)
}

// due returns when maintain has something to do.
func (s *session) due() bootTime {
	current, ok := s.current()
	switch {
	case s.IsOnce && s.Generation > 0 && (!ok || !current.Lease.Renewable):
		return 0
	case s.Retry.err != nil && s.Retry.until == 0:
		return s.manager.now()
	case s.Retry.err != nil:
		return s.Retry.until
	case !ok && s.Generation > 0:
		return s.manager.now()
	}
	return current.Due
}

func (s *session) renew(ctx context.Context, current issuedToken) {
	requested := s.manager.now() // the TTL begins before the response comes
	renewed, err := s.renewToken(ctx, current)
	switch {
	case err == nil:
		current.Lease = current.Lease.renewed(requested, renewed.TTL, renewed.Renewable)
	case errors.Is(err, vault.ErrTokenGone):
		s.invalidate(current.Generation)
		if !s.IsOnce {
			_, _ = s.login(ctx, 0)
		}
		return
	case errors.Is(err, ErrRefused):
		// A role may withhold the policy "default", which allows renewals.
		current.Lease.Renewable = false
	default:
		s.fail(ctx, err, current.Lease.ExpireTime)
		return
	}
	current.Due = current.Lease.due(s.manager.now(), s.manager.jitter)
	s.Tokens[len(s.Tokens)-1], s.Retry = current, retryState{}
	s.revision++
}

func (s *session) renewToken(ctx context.Context, current issuedToken) (vault.Token, error) {
	client, err := s.client(ctx, current)
	if err != nil {
		return vault.Token{}, err
	}
	return client.RenewToken(ctx)
}

// login gets a new token. If that fails, the next attempt comes before expiry.
func (s *session) login(ctx context.Context, expiry bootTime) (issuedToken, error) {
	requested := s.manager.now()
	token, err := s.manager.clients.Login(ctx, s.Config.Endpoint, s.Config.Options, s.Config.Login)
	if err != nil {
		s.fail(ctx, err, expiry)
		return issuedToken{}, &tokenError{err}
	}
	s.Generation++
	issued := issuedToken{Generation: s.Generation, Token: token, Lease: newLease(requested, token.TTL, token.Renewable), IssuedAt: requested}
	now := s.manager.now()
	if issued.Due = issued.Lease.due(now, s.manager.jitter); issued.Due != 0 {
		issued.Due = max(issued.Due, now+minRest)
	}
	s.Tokens, s.Retry = append(s.Tokens, issued), retryState{}
	s.revision++
	return issued, nil
}

// fail keeps an error, unless the caller gave up.
func (s *session) fail(ctx context.Context, err error, expiry bootTime) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		s.Retry.fail(err, s.manager.now(), expiry, s.manager.jitter)
		s.revision++
	}
}

// setConfig takes over credentials and certificates. Fresh ones are tried at once.
func (s *session) setConfig(config loginConfig) (isFresh bool) {
	if isFresh = s.Config != config; isFresh {
		s.Config, s.Retry.until = config, 0
	}
	return isFresh
}

func (s *session) client(ctx context.Context, t issuedToken) (*vault.Client, error) {
	return s.manager.clients.Client(ctx, s.Config.Endpoint, s.Config.Options, t.Token)
}

// revoke hands all tokens to the queue of revocations.
func (s *session) revoke(namespace string) {
	for _, each := range s.Tokens {
		s.manager.revocations.add(namespace, s.Config, each)
	}
}

func (s *session) status() SessionStatus {
	status := SessionStatus{
		Address: s.Config.Endpoint.Address, Namespace: s.Config.Options.Namespace, Mount: s.Config.Login.Mount, Role: s.Config.Login.Role,
		Logins: s.Generation, Pods: 1, Err: s.Retry.err,
	}
	if len(s.Tokens) > 0 {
		current := s.Tokens[len(s.Tokens)-1]
		status.Since, status.Expires = s.manager.timeOf(current.IssuedAt), s.manager.timeOf(current.Lease.ExpireTime)
	}
	return status
}
