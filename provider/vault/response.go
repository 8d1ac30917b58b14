package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// chunkBytes are read, and counted, at a time.
const chunkBytes = 8 << 10

// errNotVault is a response of a proxy or a load balancer. It must not pass for a login
// without a token, a missing secret, or a list without names.
var errNotVault = errors.New("the answer is not Vault's")

// bodyError is a response that began, and was not read to its end. It is not requested
// again at once: Vault may have made credentials for it.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read the response: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// readBody reads the body of a response within the limits, and replaces it with what it
// has read.
func readBody(ctx context.Context, response *http.Response) ([]byte, error) {
	status, marks := response.StatusCode, callOf(ctx)
	if status >= http.StatusMultipleChoices {
		marks.quota, marks.operation = nil, "" // an error holds no secret
	}
	content, err := marks.read(response.Body)
	// Vault answers 204 if it has nothing to say, and lists errors with a 404.
	needsBody := status < http.StatusMultipleChoices && status != http.StatusNoContent || status == http.StatusNotFound
	if err == nil && needsBody && len(content) == 0 {
		err = fmt.Errorf("%w: it is empty", errNotVault)
	}
	if err != nil {
		return nil, &bodyError{err}
	}
	response.ContentLength = int64(len(content))
	response.Body = io.NopCloser(bytes.NewReader(content))
	return content, nil
}

// read reads a body to its end, unless it exceeds a limit of one response, or of the
// quota.
func (c call) read(body io.Reader) (content []byte, err error) {
	var counted counter
	var taken Size
	defer func() {
		if err != nil && c.quota != nil {
			c.quota.undo(taken)
		}
	}()
	for chunk := make([]byte, chunkBytes); ; {
		n, readErr := body.Read(chunk)
		part := counted.count(chunk[:n])
		if err := counted.check(c.operation.readsSecret()); err != nil {
			return nil, err
		}
		if c.quota != nil {
			// A short response, as of credentials that Vault makes, needs no slot.
			isLong := counted.size.Bytes > chunkBytes
			if err := c.quota.take(part, isLong && c.operation != OperationWrite && !c.isShared); err != nil {
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

// counter counts the JSON values of a response as it arrives, so that one over a limit is
// refused before it is decoded. The decoder checks the syntax.
type counter struct {
	size     Size
	depth    int
	maxDepth int

	inString, escaped, inLiteral bool
}

// count counts the next part of a response and returns the size of that part.
func (c *counter) count(part []byte) Size {
	before := c.size
	for _, b := range part {
		c.next(b)
	}
	c.size.Bytes += len(part)
	return c.size.Sub(before)
}

func (c *counter) next(b byte) {
	if c.inString {
		c.inString = b != '"' || c.escaped
		c.escaped = b == '\\' && !c.escaped
		return
	}
	literal := false
	switch b {
	case '"':
		c.inString = true
		c.size.Values++
	case ':':
		c.size.Values-- // the string before was the key of a member
	case '{', '[':
		if b == '{' {
			c.size.Objects++
		}
		c.size.Values++
		c.depth++
		c.maxDepth = max(c.maxDepth, c.depth)
	case '}', ']':
		c.depth--
	case ',', ' ', '\t', '\n', '\r':
	default:
		literal = true
		if !c.inLiteral {
			c.size.Values++
		}
	}
	c.inLiteral = literal
}

// check compares one response with its limits.
func (c *counter) check(readsSecret bool) error {
	bytes, values, kind := limits.ResponseBytes, limits.VolumeResponseValues, ErrTooLarge
	if !readsSecret {
		bytes, values, kind = limits.AuthResponseBytes, limits.AuthResponseValues, errNotVault // Vault's are shorter
	}
	err := bytes.Check(min(c.size.Bytes, bytes.Max()+1)) // the rest is not read
	if err == nil {
		err = values.Check(c.size.Values)
	}
	if err == nil {
		err = limits.ResponseDepth.Check(c.maxDepth)
	}
	switch {
	case err == nil:
		return nil
	case readsSecret:
		return fmt.Errorf("%w: the response: %w; check that the address is a Vault, and read less at this path", kind, err)
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// isSealed recognizes a sealed Vault by its errors, or by its seal status. Others answer
// 503 too: a gateway, an engine, and "sys/health" on request.
func isSealed(operation Operation, response *http.Response, content []byte) bool {
	isProbe := operation == OperationSealProbe
	if !isProbe && response.StatusCode != http.StatusServiceUnavailable {
		return false
	}
	var answer struct {
		Sealed bool
		Errors []string
	}
	if json.Unmarshal(content, &answer) != nil {
		return false
	}
	return isProbe && answer.Sealed || strings.Contains(strings.Join(answer.Errors, "; "), sealedMessage)
}

// checkID refuses JSON of another program, which the api.Client returns as the data of a
// secret. Vault gives an id to each answer about mounts, of KV, and to a revocation; some
// engines have none, such as for the public keys of identity tokens.
func checkID(secret *api.Secret) error {
	if secret.RequestID == "" {
		return fmt.Errorf("%w: it has no request_id", errNotVault)
	}
	return nil
}

// isNotFound recognizes an answer without a secret, which would overwrite the files with
// nothing. The api.Client returns a secret even for status 404 if that comes with a
// warning, as KV version 2 does for a path without "data/".
func isNotFound(secret *api.Secret) bool {
	if secret == nil || secret.Data == nil && secret.Auth == nil && secret.WrapInfo == nil && secret.LeaseID == "" {
		return true
	}
	// A deleted version of KV version 2 has metadata and no data. The token may not read
	// the mount, so its version does not matter.
	data, isVersion := secret.Data["data"]
	metadata, _ := secret.Data["metadata"].(map[string]any)
	return isVersion && data == nil && metadata["version"] != nil
}

// notFound is ErrNotFound, in Vault's own words if it has some.
func notFound(path, fullPath string, secret *api.Secret) error {
	if secret != nil && len(secret.Warnings) > 0 {
		warning := oneLine(strings.Join(secret.Warnings, "; "))
		if strings.Contains(warning, "versioned K/V") { // the token may not read the mount
			warning += "; write data/ after the mount's path, or metadata/ to list"
		}
		return fmt.Errorf("%w: %s", ErrNotFound, warning)
	}
	if path != fullPath {
		return fmt.Errorf("%w: nothing is stored at %s, or it is deleted", ErrNotFound, path)
	}
	return fmt.Errorf("%w: nothing is stored there, or it is deleted", ErrNotFound)
}
