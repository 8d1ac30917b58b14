package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
func (s *Client) RenewToken(ctx context.Context) (Token, error) {
	const path = "auth/token/renew-self"
	secret, err := s.client.Auth().Token().RenewSelfWithContext(during(ctx, RenewToken), 0)
	if err != nil {
		return Token{}, s.failure("renew", path, err)
	}
	if secret == nil || secret.Auth == nil {
		return Token{}, fmt.Errorf("renew %s: %w: the answer holds no token", path, ErrUnavailable)
	}
	renewed := newToken(secret.Auth)
	renewed.Secret = s.client.Token()
	return renewed, nil
}

// RenewLease asks for a lease to last for a time from now. The answer has the
// duration that Vault grants, which is less near the lease's end. The error is
// ErrRefused, but not ErrDenied, for a lease that Vault does not know any more.
func (s *Client) RenewLease(ctx context.Context, leaseID string, wanted time.Duration) (*api.Secret, error) {
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
// ErrUnavailable, since the token would live on.
func (s *Client) Revoke(ctx context.Context) error {
	const path = "auth/token/revoke-self"
	response, err := s.client.Logical().WriteRawWithContext(during(ctx, Revoke), path, nil)
	if response != nil {
		defer response.Body.Close()
	}
	if isForeign(err) {
		return s.notVault("revoke", path, response)
	}
	if err != nil {
		return s.failure("revoke", path, err)
	}
	return s.checkRevocation(path, response)
}

// isForeign tells an error that Vault has not worded, or that has no meaning here:
// the path is there in every Vault.
func isForeign(err error) bool {
	var response *api.ResponseError
	return errors.As(err, &response) && (response.RawError || response.StatusCode == http.StatusNotFound)
}

// checkRevocation believes an answer without an error only if it is Vault's: no
// content, or a warning in an envelope with the id that Vault gives each answer.
func (s *Client) checkRevocation(path string, response *api.Response) error {
	if response.StatusCode == http.StatusNoContent {
		return nil
	}
	secret, err := api.ParseSecret(response.Body)
	if err != nil {
		return s.failure("revoke", path, err)
	}
	if response.StatusCode != http.StatusOK || secret == nil || secret.RequestID == "" {
		return s.notVault("revoke", path, response)
	}
	return nil
}

func (s *Client) notVault(verb, path string, response *api.Response) error {
	return fmt.Errorf("%s %s in Vault at %s: %w: the answer, with status %d, is not Vault's; check the address, and what stands between", verb, path, s.client.Address(), ErrUnavailable, response.StatusCode)
}
