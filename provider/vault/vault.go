// Package vault logs in to a Vault server and reads, lists, writes, renews and
// revokes there with the token of one session.
//
// It never touches the file system, keeps no secret after it has returned it,
// and puts no token into an error.
package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Client makes requests with one Vault token. It may be used concurrently.
type Client struct {
	server *endpointClient
	client *api.Client
}

// Read reads a path, which may carry a query ("kv/app?version=2") and may leave
// out the "data/" of a KV version 2 mount. The error is ErrNotFound for what
// does not exist or is deleted.
func (s *Client) Read(ctx context.Context, rawPath string) (*api.Secret, error) {
	path, query, err := splitPath(rawPath)
	if err != nil {
		return nil, err
	}
	found, err := s.look(ctx, path, kvData, func(fullPath string) (*api.Secret, error) {
		secret, err := s.get(during(ctx, Read), fullPath, query)
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
func (s *Client) List(ctx context.Context, rawPath string) ([]string, error) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return nil, err
	}
	found, err := s.look(ctx, path, kvMetadata, func(fullPath string) (*api.Secret, error) {
		secret, err := s.get(during(ctx, List), fullPath, url.Values{"list": {"true"}})
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
func (s *Client) Write(ctx context.Context, rawPath string, data map[string]any) (*api.Secret, error) {
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
	body, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w: %w", fullPath, ErrInvalid, err)
	}
	var secret *api.Secret
	response, err := s.client.Logical().WriteRawWithContext(during(ctx, Write), fullPath, body)
	if err == nil { // what is not found is an error here
		secret, err = s.decode(ctx, response, nil)
	}
	if err != nil {
		err = s.failure("write", fullPath, err)
		if mayBeElsewhere(err) && mount.path != "" {
			_, _ = s.learnAnew(ctx, path, mount) // for the next write: this one is not repeated
		}
		return nil, err
	}
	return secret, nil
}

// get asks once more if the volume needs a place for a response of this size.
func (s *Client) get(ctx context.Context, path string, query url.Values) (*api.Secret, error) {
	secret, err := s.getOnce(ctx, path, query)
	if !errors.Is(err, errNoPlace) {
		return secret, err
	}
	if err := quotaOf(ctx).enter(ctx); err != nil {
		return nil, err
	}
	return s.getOnce(ctx, path, query)
}

func (s *Client) getOnce(ctx context.Context, path string, query url.Values) (*api.Secret, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // or the timer of the client's own timeout would run on
	response, err := s.client.Logical().ReadRawWithDataWithContext(ctx, path, query)
	return s.decode(ctx, response, err)
}

// longResponse is one of those that are decoded one at a time.
const longResponse = 64 << 10

// decode makes a secret of a response, nil of one that says there is none.
func (s *Client) decode(ctx context.Context, response *api.Response, err error) (*api.Secret, error) {
	if err == nil && response.ContentLength > longResponse {
		tenant := fairqueue.Tenant(ctx)
		if err := s.server.decoding.Acquire(ctx, tenant, classOf(ctx), 1); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoTurn, err)
		}
		defer s.server.decoding.Release(tenant, 1)
	}
	return s.client.Logical().ParseRawResponseAndCloseBody(response, err)
}

// failure says what was tried, where, and what Vault answered, without the token.
func (s *Client) failure(verb, path string, err error) error {
	return fmt.Errorf("%s %s in Vault at %s: %w", verb, limits.Truncate(path, maxWords), limits.Truncate(s.client.Address(), maxWords), redact(requestFailure(err), s.client.Token()))
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
