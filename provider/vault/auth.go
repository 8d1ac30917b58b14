package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Credentials are what a pod logs in with: a role and a service-account token, or an
// AppRole.
type Credentials struct {
	// Mount is the path of the auth method with its leading "auth/".
	Mount string
	// Role may be empty for a jwt mount that has a default one.
	Role string
	// JWT is the pod's service-account token. FallbackJWT is one for another audience, for
	// a role that rejects the audience of the first; empty for none.
	JWT, FallbackJWT string
	// RoleID and SecretID are for an AppRole, without Role and JWT.
	RoleID, SecretID string
	// Audience is that of JWT. It is not sent; it distinguishes the sessions of a pod.
	Audience string
	// ServiceAccount is "namespace/name", for messages and for shared logins. It is not
	// sent.
	ServiceAccount string
}

// String describes the credentials without their secrets.
func (c Credentials) String() string {
	if c.RoleID != "" {
		return fmt.Sprintf("%s with a role id of the volume's Secret", c.Mount)
	}
	if c.Role == "" {
		return fmt.Sprintf("%s with its default role and service account %s", c.Mount, c.ServiceAccount)
	}
	return fmt.Sprintf("%s with role %q and service account %s", c.Mount, c.Role, c.ServiceAccount)
}

// Login logs in at an endpoint, on the account of the namespace of ctx
// (fairqueue.WithTenant). The error is ErrInvalid for certificates that cannot be used,
// ErrRefused if Vault says why not, and ErrUnavailable if another attempt may succeed.
func (p *ClientPool) Login(ctx context.Context, endpoint Endpoint, options ClientOptions, credentials Credentials) (Token, error) {
	client, err := p.newClient(ctx, endpoint, options)
	if err != nil {
		return Token{}, err
	}
	secret, err := client.logIn(withOperation(ctx, OperationLogin), credentials)
	if err == nil {
		err = checkLogin(secret, credentials)
	}
	if err != nil {
		err = redact(loginFailure(err, credentials), credentials.JWT, credentials.FallbackJWT, credentials.SecretID)
		return Token{}, fmt.Errorf("log in to Vault at %s through %s: %w", client.api.Address(), credentials, err)
	}
	return newToken(secret.Auth), nil
}

// logIn sends the pod's token, and if the role may reject its audience the other one. Of
// two such rejections it returns the first.
func (c *Client) logIn(ctx context.Context, credentials Credentials) (*api.Secret, error) {
	secret, err := c.sendLogin(ctx, credentials, credentials.JWT)
	if credentials.FallbackJWT == "" || !mayRejectAudience(err) {
		return secret, err
	}
	if observer := c.endpoint.pool.config.Observer; observer != nil {
		observer.ObserveLoginFallback()
	}
	secret, fallbackErr := c.sendLogin(ctx, credentials, credentials.FallbackJWT)
	if mayRejectAudience(fallbackErr) {
		return nil, err
	}
	return secret, fallbackErr
}

func (c *Client) sendLogin(ctx context.Context, credentials Credentials, jwt string) (*api.Secret, error) {
	body := map[string]any{"role": credentials.Role, "jwt": jwt, "role_id": credentials.RoleID, "secret_id": credentials.SecretID}
	maps.DeleteFunc(body, func(_ string, value any) bool { return value == "" })
	return c.api.Logical().WriteWithContext(ctx, credentials.Mount+"/login", body)
}

// mayRejectAudience reports whether a refusal may be for the token's audience. A role
// that is bound to an audience says so. If Vault has the API server review a token with
// that same token, it gives no reason.
func mayRejectAudience(err error) bool {
	message, refused := refusal(err)
	return refused && (message == noReason || strings.Contains(message, wrongAudience))
}

// checkLogin checks that an answer without an error has a token. Vault itself leaves it
// out only if it requires a second factor.
func checkLogin(secret *api.Secret, credentials Credentials) error {
	switch {
	case secret == nil || secret.Auth == nil:
		return errNoToken
	case secret.Auth.ClientToken != "":
		return nil
	case secret.Auth.MFARequirement != nil:
		return fmt.Errorf("%w: it requires a second factor, which a pod cannot give; take %s out of the MFA login enforcement",
			ErrRefused, credentials.Mount)
	}
	return errNoToken
}

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
