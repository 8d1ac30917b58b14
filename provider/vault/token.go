package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
)

// Token is a Vault token and how long it lives.
type Token struct {
	Secret string
	// TTL counts from the request for the login or renewal; 0 is for ever.
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
		Batch:     auth.Accessor == "", // only batch tokens have none
	}
}

var errNoToken = fmt.Errorf("%w: it holds no token", errNotVault)

// RenewToken renews the token for as long as Vault grants, and returns it with its new
// TTL.
func (c *Client) RenewToken(ctx context.Context) (Token, error) {
	secret, err := c.api.Auth().Token().RenewSelfWithContext(withOperation(ctx, OperationRenewToken), 0)
	if err == nil && (secret == nil || secret.Auth == nil) {
		err = errNoToken
	}
	if err != nil {
		return Token{}, c.failure("renew", "auth/token/renew-self", err)
	}
	renewed := newToken(secret.Auth)
	renewed.Secret = c.api.Token()
	return renewed, nil
}

// RenewLease renews a lease for a duration from now. The answer has the duration that
// Vault grants, which is shorter near the end of the lease. The error is ErrRefused, but
// not ErrDenied, for a lease that Vault no longer knows.
func (c *Client) RenewLease(ctx context.Context, leaseID string, duration time.Duration) (*api.Secret, error) {
	secret, err := c.api.Sys().RenewWithContext(withOperation(ctx, OperationRenewLease), leaseID, int(duration/time.Second))
	if err == nil && secret == nil {
		err = fmt.Errorf("%w: it holds no lease", errNotVault)
	}
	if err != nil {
		return nil, c.failure("renew a lease by", "sys/leases/renew", err)
	}
	return secret, nil
}

// Revoke revokes the token, and with it all its leases. Unlike the api.Client's
// RevokeSelf it checks the answer: one that is not Vault's is ErrUnavailable, because the
// token would live on.
func (c *Client) Revoke(ctx context.Context) error {
	const path = "auth/token/revoke-self"
	response, err := c.api.Logical().WriteRawWithContext(withOperation(ctx, OperationRevoke), path, nil)
	if response != nil {
		defer response.Body.Close()
	}
	if err == nil {
		err = checkRevocation(response)
	} else if refused := new(api.ResponseError); errors.As(err, &refused) && (refused.RawError || refused.StatusCode == http.StatusNotFound) {
		// Vault words its errors, and each Vault has this path.
		err = fmt.Errorf("%w: it has status %d", errNotVault, refused.StatusCode)
	}
	if err != nil {
		return c.failure("revoke", path, err)
	}
	return nil
}

// checkRevocation accepts no content, or a warning with Vault's request id.
func checkRevocation(response *api.Response) error {
	if response.StatusCode == http.StatusNoContent {
		return nil
	}
	secret, err := api.ParseSecret(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || secret == nil || secret.RequestID == "" {
		return fmt.Errorf("%w: it has status %d and no request_id", errNotVault, response.StatusCode)
	}
	return nil
}
