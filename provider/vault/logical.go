package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Client makes requests with one Vault token. It may be used concurrently.
type Client struct {
	endpoint *endpointClient
	api      *api.Client
}

// Read reads a path, which may have a query ("kv/app?version=2") and may leave out the
// "data/" of a KV version 2 mount. The error is ErrNotFound if nothing is stored there,
// or it is deleted.
func (c *Client) Read(ctx context.Context, rawPath string) (*api.Secret, error) {
	_, secret, err := c.get(ctx, OperationRead, rawPath)
	if err != nil {
		return nil, err
	}
	return secret, nil
}

// List returns the names below a path, none if nothing is stored there.
func (c *Client) List(ctx context.Context, rawPath string) ([]string, error) {
	fullPath, secret, err := c.get(ctx, OperationList, rawPath)
	if err != nil || secret == nil {
		return nil, err
	}
	keys, ok := secret.Data["keys"].([]any)
	names := make([]string, len(keys))
	for i := range names {
		if names[i], ok = keys[i].(string); !ok {
			break
		}
	}
	if !ok {
		return nil, c.failure(string(OperationList), fullPath, fmt.Errorf("%w: it holds no list of names", errNotVault))
	}
	return names, nil
}

// Write sends data to a path and returns the answer, nil if that is empty: this is how
// Vault issues certificates, or encrypts. In a KV version 2 mount it stores the data as a
// new version, as consul-template does.
func (c *Client) Write(ctx context.Context, rawPath string, data map[string]any) (*api.Secret, error) {
	path, _, err := splitPath(rawPath)
	if err != nil {
		return nil, err
	}
	mount, err := c.mountOf(ctx, path)
	if err != nil {
		return nil, err
	}
	fullPath := mount.fullPath(path, kvData)
	if mount.isKV2() {
		data = map[string]any{"data": data}
	}
	body, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w: %w", fullPath, ErrInvalid, err)
	}
	var secret *api.Secret
	response, err := c.api.Logical().WriteRawWithContext(withOperation(ctx, OperationWrite), fullPath, body)
	if err == nil { // status 404 is an error
		secret, err = c.decode(ctx, response, nil)
	}
	if err != nil {
		err = c.failure(string(OperationWrite), fullPath, err)
		if mount.mayBeReplaced(err) {
			_, _ = c.probeAgain(ctx, path, mount) // for the next write: this one is not repeated
		}
		return nil, err
	}
	return secret, nil
}

// get reads or lists a path. If that is not found or refused, the mount may have been
// upgraded or replaced since it was cached: get asks Vault for the mount again, and once
// more for the path if that is another one now. The secret is nil for a list without names.
func (c *Client) get(ctx context.Context, operation Operation, rawPath string) (fullPath string, secret *api.Secret, err error) {
	path, query, err := splitPath(rawPath)
	if err != nil {
		return "", nil, err
	}
	prefix := kvData
	if operation == OperationList {
		prefix, query = kvMetadata, url.Values{"list": {"true"}}
	}
	cached, err := c.mountOf(ctx, path)
	if err != nil {
		return "", nil, err
	}
	fullPath = cached.fullPath(path, prefix)
	ctx = withOperation(ctx, operation)
	secret, err = c.getAt(ctx, cached, path, fullPath, query)
	if cached.mayBeReplaced(err) {
		current, probeErr := c.probeAgain(ctx, path, cached)
		if probeErr != nil {
			return "", nil, probeErr
		}
		if now := current.fullPath(path, prefix); now != fullPath {
			fullPath = now
			secret, err = c.getAt(ctx, current, path, fullPath, query)
		}
	}
	if operation == OperationList && secret == nil && errors.Is(err, ErrNotFound) {
		err = nil
	}
	return fullPath, secret, err
}

// getAt requests a full path, once more if the volume needs a slot for a response of this
// size.
func (c *Client) getAt(ctx context.Context, mount mount, path, fullPath string, query url.Values) (*api.Secret, error) {
	secret, err := c.getOnce(ctx, fullPath, query)
	if errors.Is(err, errNeedsSlot) {
		if err = callOf(ctx).quota.acquireSlot(ctx); err == nil {
			secret, err = c.getOnce(ctx, fullPath, query)
		}
	}
	if err == nil && secret != nil && mount.isKV() {
		err = checkID(secret)
	}
	switch {
	case err != nil:
		return nil, c.failure(string(callOf(ctx).operation), fullPath, err)
	case isNotFound(secret):
		return secret, fmt.Errorf("%s %s: %w", callOf(ctx).operation, fullPath, redact(notFound(path, fullPath, secret), c.api.Token()))
	}
	return secret, nil
}

func (c *Client) getOnce(ctx context.Context, path string, query url.Values) (*api.Secret, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // or the timer of the api.Client's timeout would run on
	response, err := c.api.Logical().ReadRawWithDataWithContext(ctx, path, query)
	return c.decode(ctx, response, err)
}

// longResponse is the length, in bytes, from which responses are decoded one at a time.
const longResponse = 64 << 10

// decode makes a secret of a response, nil if that says there is none.
func (c *Client) decode(ctx context.Context, response *api.Response, err error) (*api.Secret, error) {
	if err == nil && response.StatusCode >= http.StatusMultipleChoices && response.StatusCode < http.StatusBadRequest {
		return nil, fmt.Errorf("%w: it has status %d", errNotVault, response.StatusCode) // after a redirect that was followed
	}
	if err == nil && response.ContentLength > longResponse {
		namespace := fairqueue.Tenant(ctx)
		if err := c.endpoint.pool.decoding.Acquire(ctx, namespace, callOf(ctx).class, 1); err != nil {
			return nil, fmt.Errorf("%w: %w", errNotSent, err)
		}
		defer c.endpoint.pool.decoding.Release(namespace, 1)
	}
	return c.api.Logical().ParseRawResponseAndCloseBody(response, err)
}

// failure gives an error its kind, and says what failed and where, without the token.
func (c *Client) failure(verb, path string, err error) error {
	path, address := limits.Truncate(path, maxQuoted), limits.Truncate(c.api.Address(), maxQuoted)
	return fmt.Errorf("%s %s in Vault at %s: %w", verb, path, address, redact(requestFailure(err), c.api.Token()))
}
