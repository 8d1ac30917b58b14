package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
)

const (
	// chunkBytes are read, and counted, at a time.
	chunkBytes = 8 << 10
	// maxErrorBody is as much as is read of an answer that is not a success. The
	// longest of Vault's is the metadata of a deleted secret.
	maxErrorBody = 64 << 10
)

// errEmpty is an answer that says OK, or not found, and nothing else. Vault says 204
// then, or lists no errors, so this is a proxy's or a load balancer's; taken for
// Vault's, it would be a login without a token, a secret that is not there, or a list
// without names.
var errEmpty = errors.New("the answer is empty, which none of Vault's is but with status 204")

// bodyError is a response that began, and could not be read to its end. It is not
// asked for again at once: Vault may have made credentials for it.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the response: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// readBody reads the body of a response within the limits, and gives the response
// what it has read for a body.
func readBody(ctx context.Context, response *http.Response) (content []byte, err error) {
	if response.StatusCode >= http.StatusMultipleChoices {
		content, err = readError(response)
	} else {
		content, err = readSuccess(ctx, response.Body)
	}
	if err != nil {
		return nil, &bodyError{err}
	}
	response.ContentLength = int64(len(content))
	response.Body = io.NopCloser(bytes.NewReader(content))
	isError := response.StatusCode >= http.StatusBadRequest && response.StatusCode != http.StatusNotFound
	if len(content) == 0 && response.StatusCode != http.StatusNoContent && !isError {
		response.Body = noBody{} // which is an error if it is read, as that of a redirect is not
	}
	return content, nil
}

func readSuccess(ctx context.Context, body io.Reader) (content []byte, err error) {
	quota, operation := quotaOf(ctx), operationOf(ctx)
	var counted counter
	var taken Size
	defer func() {
		if err != nil && quota != nil {
			quota.giveBack(taken)
		}
	}()
	for chunk := make([]byte, chunkBytes); ; {
		n, readErr := body.Read(chunk)
		part := counted.count(chunk[:n])
		if err := counted.check(operation.bringsSecret()); err != nil {
			return nil, err
		}
		if quota != nil {
			// A short response, as of credentials that Vault makes, needs no place.
			isLong := counted.size.Bytes > chunkBytes
			if err := quota.take(part, isLong && operation != Write && !isSharedCall(ctx)); err != nil {
				return nil, err
			}
			taken = taken.Add(part)
		}
		content = append(content, chunk[:n]...)
		if errors.Is(readErr, io.EOF) {
			return content, nil
		}
		if readErr != nil {
			return nil, readErr
		}
	}
}

// check holds one response against its limits.
func (c *counter) check(holdsSecret bool) error {
	bytes, values := limits.ResponseBytes, limits.VolumeResponseValues
	kind, remedy := ErrTooLarge, "is this a Vault, and is the path not too much at once?"
	if !holdsSecret {
		bytes, values = limits.AuthResponseBytes, limits.AuthResponseValues
		kind, remedy = errNotVaults, "check the address, and what stands between" // as no Vault's is as long
	}
	err := bytes.Check(min(c.size.Bytes, bytes.Max()+1)) // the rest is not read
	if err == nil {
		err = values.Check(c.size.Values)
	}
	if err == nil {
		err = limits.ResponseDepth.Check(c.maxDepth)
	}
	if err != nil {
		return fmt.Errorf("%w: the response: %w; %s", kind, err, remedy)
	}
	return nil
}

// readError refuses the long page of some proxy.
func readError(response *http.Response) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBody+1))
	if err != nil {
		return nil, err
	}
	var counted counter
	if counted.count(content); len(content) > maxErrorBody || counted.check(false) != nil {
		return nil, fmt.Errorf("%w: HTTP status %d with more than an error of Vault's is long; check the address, and what stands between", errNotVaults, response.StatusCode)
	}
	return content, nil
}

var errNotVaults = errors.New("the answer is not Vault's")

// noBody is a body that must not be read.
type noBody struct{}

// Read implements io.Reader.
func (noBody) Read([]byte) (int, error) { return 0, errEmpty }

// Close implements io.Closer.
func (noBody) Close() error { return nil }

// isSealed recognises Vault's own answer while it is sealed. Others answer 503 too: a
// gateway, an engine, and "sys/health" on request.
func isSealed(response *http.Response, content []byte) bool {
	var said struct{ Errors []string }
	return response.StatusCode == http.StatusServiceUnavailable && json.Unmarshal(content, &said) == nil &&
		slices.ContainsFunc(said.Errors, func(text string) bool { return strings.Contains(text, sealedWords) })
}
