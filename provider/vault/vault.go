// Package vault logs in to a Vault server and reads, lists, writes, renews and
// revokes there with the token of one session.
//
// It never touches the file system, keeps no secret after it has returned it,
// and puts no token into an error.
package vault

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/api"
)

// Session is one Vault token. It may be used concurrently, until Close.
type Session struct {
	servers *Servers
	server  *server
	client  *api.Client
	token   Token
}

// Close gives the session up here; Revoke ends it in Vault.
func (s *Session) Close() { s.servers.release(s.server) }

// Read reads a path, which may carry a query ("kv/app?version=2") and may leave
// out the "data/" of a KV version 2 mount. The error is ErrNotFound for what
// does not exist or is deleted.
func (s *Session) Read(ctx context.Context, rawPath string) (*api.Secret, error) {
	path, query, err := splitPath(rawPath)
	if err != nil {
		return nil, err
	}
	found, err := s.look(ctx, path, kvData, func(fullPath string) (*api.Secret, error) {
		secret, err := s.client.Logical().ReadWithDataWithContext(during(ctx, Read), fullPath, query)
		if err != nil {
			return nil, s.failure("read", fullPath, err)
		}
		return secret, nil
	})
	if err != nil {
		return nil, err
	}
	if found.isNothing() {
		return nil, s.absence("read", path, found)
	}
	return found.secret, nil
}

// List returns the names below a path, none if there is nothing.
func (s *Session) List(ctx context.Context, rawPath string) ([]string, error) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return nil, err
	}
	found, err := s.look(ctx, path, kvMetadata, func(fullPath string) (*api.Secret, error) {
		secret, err := s.client.Logical().ListWithContext(during(ctx, List), fullPath)
		if err != nil {
			return nil, s.failure("list", fullPath, err)
		}
		return secret, nil
	})
	if err != nil || found.secret == nil {
		return nil, err
	}
	if found.isNothing() {
		return nil, s.absence("list", path, found)
	}
	return parseKeys(found.path, found.secret)
}

// Write sends data to a path and returns the answer: how Vault issues
// certificates, or encrypts. In a KV version 2 mount it stores the data as a new
// version, as consul-template does. The secret is nil if Vault answers with
// nothing.
func (s *Session) Write(ctx context.Context, rawPath string, data map[string]any) (*api.Secret, error) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return nil, err
	}
	fullPath, mount, err := s.resolve(ctx, path, kvData)
	if err != nil {
		return nil, err
	}
	if mount.isKV2() {
		data = map[string]any{"data": data}
	}
	secret, err := s.client.Logical().WriteWithContext(during(ctx, Write), fullPath, data)
	if err != nil {
		err = s.failure("write", fullPath, err)
		if mayBeElsewhere(err) && mount.path != "" {
			_, _ = s.learnAnew(ctx, path, mount) // for the next write: this one is not repeated
		}
		return nil, err
	}
	return secret, nil
}

// failure says what was tried, where, and what Vault answered, without the token.
func (s *Session) failure(verb, path string, err error) error {
	return fmt.Errorf("%s %s in Vault at %s: %w", verb, path, s.client.Address(), redact(requestFailure(err), s.client.Token()))
}

func parseKeys(path string, secret *api.Secret) ([]string, error) {
	keys, ok := secret.Data["keys"].([]any)
	if !ok {
		return nil, fmt.Errorf("list %s: %w: the answer holds no keys", path, ErrUnavailable)
	}
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		name, ok := key.(string)
		if !ok {
			return nil, fmt.Errorf("list %s: %w: the answer holds a key that is no string", path, ErrUnavailable)
		}
		names = append(names, name)
	}
	return names, nil
}
