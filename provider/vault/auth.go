package vault

import (
	"context"
	"fmt"
	"strings"

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
	body := map[string]any{}
	for key, value := range map[string]string{"role": credentials.Role, "jwt": jwt, "role_id": credentials.RoleID, "secret_id": credentials.SecretID} {
		if value != "" {
			body[key] = value
		}
	}
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
		return fmt.Errorf("%w: it requires a second factor, which a pod cannot give; take %s out of the MFA login enforcement", ErrRefused, credentials.Mount)
	}
	return errNoToken
}
