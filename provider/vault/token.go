package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/api"
)

// Token is what a login brings, and how long it lives.
type Token struct {
	Secret string
	// TTL counts from the login or the renewal that granted it; 0 is for ever.
	TTL       time.Duration
	Renewable bool
	// Batch tokens are not stored by Vault, so they cannot be revoked.
	Batch bool
}

// String keeps the token out of messages.
func (Token) String() string { return "[a Vault token]" }

func newToken(auth *api.SecretAuth) Token {
	return Token{
		Secret:    auth.ClientToken,
		TTL:       time.Duration(auth.LeaseDuration) * time.Second,
		Renewable: auth.Renewable,
		Batch:     auth.Accessor == "", // which only they lack
	}
}

// RenewToken prolongs the token by as much as Vault grants, and returns it with
// the TTL that it has now.
func (s *Session) RenewToken(ctx context.Context) (Token, error) {
	const path = "auth/token/renew-self"
	secret, err := s.client.Auth().Token().RenewSelfWithContext(during(ctx, RenewToken), 0)
	if err != nil {
		return Token{}, s.failure("renew", path, err)
	}
	if secret == nil || secret.Auth == nil {
		return Token{}, fmt.Errorf("renew %s: %w: the answer holds no token", path, ErrUnavailable)
	}
	renewed := newToken(secret.Auth)
	renewed.Secret = s.token.Secret
	return renewed, nil
}

// RenewLease asks for a lease to last for a time from now. The answer has the
// duration that Vault grants, which is less near the lease's end. The error is
// ErrRefused, but not ErrDenied, for a lease that Vault does not know any more.
func (s *Session) RenewLease(ctx context.Context, leaseID string, wanted time.Duration) (*api.Secret, error) {
	const path = "sys/leases/renew"
	secret, err := s.client.Sys().RenewWithContext(during(ctx, RenewLease), leaseID, int(wanted/time.Second))
	if err != nil {
		return nil, s.failure("renew a lease by", path, err)
	}
	if secret == nil {
		return nil, fmt.Errorf("renew a lease by %s: %w: the answer is empty", path, ErrUnavailable)
	}
	return secret, nil
}

// Revoke ends the session in Vault, and all its leases with it. It reads the
// answer, unlike the client's own RevokeSelf: what is not Vault's word is
// ErrUnavailable.
func (s *Session) Revoke(ctx context.Context) error {
	const path = "auth/token/revoke-self"
	_, err := s.client.Logical().WriteWithContext(during(ctx, Revoke), path, nil)
	if err != nil {
		return s.failure("revoke", path, err)
	}
	return nil
}
