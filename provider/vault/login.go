package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/api"
)

// Credentials is what a pod shows to Vault: a role and a token, or the two halves of
// an AppRole.
type Credentials struct {
	// Mount is the path of the auth method with its leading "auth/".
	Mount string
	// Role may be empty for a jwt mount that has a default one.
	Role string
	// JWT is the pod's service-account token. FallbackJWT is one for another audience,
	// which is shown if Vault may have refused the first for its own; empty for none.
	JWT, FallbackJWT string
	// RoleID and SecretID are set for an AppRole, and nothing else is then.
	RoleID, SecretID string
	// Audience says which of the pod's tokens JWT is. Vault is not told; it tells
	// the logins of a pod apart.
	Audience string
	// ServiceAccount is "namespace/name", for messages, and for telling who may share
	// a login. Vault is not told.
	ServiceAccount string
}

func (l Credentials) body() map[string]any {
	body := map[string]any{}
	for key, value := range map[string]string{"role": l.Role, "jwt": l.JWT, "role_id": l.RoleID, "secret_id": l.SecretID} {
		if value != "" {
			body[key] = value
		}
	}
	return body
}

// String describes the login without its secrets.
func (l Credentials) String() string {
	if l.RoleID != "" {
		return fmt.Sprintf("%s with a role id of the volume's Secret", l.Mount)
	}
	if l.Role == "" {
		return fmt.Sprintf("%s with its default role and service account %s", l.Mount, l.ServiceAccount)
	}
	return fmt.Sprintf("%s with role %q and service account %s", l.Mount, l.Role, l.ServiceAccount)
}

// Login logs in at an endpoint, on the account of the namespace of ctx
// (fairqueue.WithTenant). The error is ErrInvalid for certificates that cannot be used,
// ErrRefused when Vault says why not, and ErrUnavailable when another attempt may succeed.
func (p *ClientPool) Login(ctx context.Context, endpoint Endpoint, options ClientOptions, login Credentials) (Token, error) {
	server, err := p.get(ctx, endpoint)
	if err != nil {
		return Token{}, err
	}
	client, err := server.newAPIClient(options)
	if err != nil {
		return Token{}, err
	}
	return server.logIn(ctx, client, options.Namespace, login)
}

// Client returns a client for the token of an earlier login. It sends no request. The
// error is ErrInvalid for certificates that cannot be used.
func (p *ClientPool) Client(ctx context.Context, endpoint Endpoint, options ClientOptions, token Token) (*Client, error) {
	server, err := p.get(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	options.MinBackoff, options.MaxBackoff = 0, 0 // these are for logins
	client, err := server.newAPIClient(options)
	if err != nil {
		return nil, err
	}
	client.SetToken(token.Secret)
	return &Client{server: server, client: client}, nil
}

func (s *endpointClient) logIn(ctx context.Context, client *api.Client, namespace string, login Credentials) (Token, error) {
	secret, err := s.show(ctx, client, namespace, login)
	if err != nil {
		return Token{}, fmt.Errorf("log in to Vault at %s through %s: %w", client.Address(), login, redact(loginFailure(err, login), login.JWT, login.FallbackJWT, login.SecretID))
	}
	if err := checkLogin(secret, login); err != nil {
		return Token{}, fmt.Errorf("log in to Vault at %s through %s: %w", client.Address(), login, err)
	}
	return newToken(secret.Auth), nil
}

// show shows Vault the token that the role takes, as far as that is known, and the
// other one if it does not. Of two refusals, it returns the one that is not for the
// audience.
func (s *endpointClient) show(ctx context.Context, client *api.Client, namespace string, login Credentials) (*api.Secret, error) {
	role := taker{namespace, login.Mount, login.Role}
	prefersOther := login.FallbackJWT != "" && s.tastes.forOther(role)
	fallsBack := prefersOther
	if prefersOther {
		login = login.swapped()
	}
	secret, err := s.write(ctx, client, login, fallsBack)
	if login.FallbackJWT == "" || !mayTakeOther(err) {
		return secret, err
	}
	secret, otherErr := s.write(ctx, client, login.swapped(), !fallsBack)
	if otherErr == nil {
		s.tastes.note(role, !prefersOther)
	}
	if mayTakeOther(otherErr) {
		return nil, err
	}
	return secret, otherErr
}

func (s *endpointClient) write(ctx context.Context, client *api.Client, login Credentials, fallsBack bool) (*api.Secret, error) {
	if fallsBack && s.observer != nil {
		s.observer.ObserveLoginFallback()
	}
	return client.Logical().WriteWithContext(during(ctx, LogIn), login.Mount+"/login", login.body())
}

// checkLogin looks for the token in an answer without an error. Vault itself keeps
// one back only if it wants a second factor, which a pod has not got.
func checkLogin(secret *api.Secret, login Credentials) error {
	switch {
	case secret == nil || secret.Auth == nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, errNoToken)
	case secret.Auth.ClientToken != "":
		return nil
	case secret.Auth.MFARequirement != nil:
		return fmt.Errorf("%w: it wants a second factor, which a pod cannot give; take %s out of the MFA login enforcement", ErrRefused, login.Mount)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, errNoToken)
}

// errNoToken is what a proxy says that answers in Vault's place.
var errNoToken = errors.New("the answer holds no token, so it is not Vault's; check the address, and what stands between")
