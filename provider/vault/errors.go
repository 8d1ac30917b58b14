package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// The kinds of errors, for errors.Is; ErrTooLarge is one more.
var (
	// ErrInvalid is a request that no Vault could answer.
	ErrInvalid = errors.New("invalid request")
	// ErrRefused is an answer that another attempt does not change.
	ErrRefused = errors.New("refused by Vault")
	// ErrDenied is an ErrRefused for lack of a permission, of a token that is valid.
	ErrDenied = fmt.Errorf("%w", ErrRefused)
	// ErrTokenGone is an ErrDenied for a token that Vault does not know, or no longer.
	// Older versions of Vault do not distinguish it.
	ErrTokenGone = fmt.Errorf("%w", ErrDenied)
	// ErrNotFound is a secret that does not exist.
	ErrNotFound = errors.New("no such secret")
	// ErrUnavailable is a transient failure: another attempt may succeed.
	ErrUnavailable = errors.New("unavailable for now")
)

// What Vault says of a login.
const (
	noReason      = "permission denied"
	wrongAudience = "invalid audience"
)

// loginFailure gives the error of a login its kind, and adds to Vault's message what to
// do about it.
func loginFailure(err error, credentials Credentials) error {
	message, ok := refusal(err)
	if !ok {
		return requestFailure(err)
	}
	if message == noReason {
		// Vault says the same if it could not ask the API server about the token, so the
		// answer is not final.
		audience := ""
		if credentials.JWT != "" && credentials.FallbackJWT == "" {
			audience = ", or the role takes a token of another audience (attribute audience)"
		}
		return fmt.Errorf("%w: permission denied; Vault gives no reason: either %s is not a mounted auth method, or Vault's TokenReview of the pod's token failed (see Vault's own log)%s",
			ErrUnavailable, credentials.Mount, audience)
	}
	return fmt.Errorf("%w: %s; %s", ErrRefused, message, loginHint(message, credentials))
}

func loginHint(message string, credentials Credentials) string {
	role := fmt.Sprintf("role %q of %s", credentials.Role, credentials.Mount)
	if credentials.Role == "" {
		role = "the role of " + credentials.Mount
	}
	switch {
	case strings.Contains(message, "invalid role or secret ID"):
		return "check the role id and the secret id in the volume's Secret; a secret id may have expired or been used up"
	case strings.Contains(message, "missing role"):
		return "set the attribute role, or default_role of " + credentials.Mount
	case strings.Contains(message, "service account name not authorized"):
		return "add the service account to bound_service_account_names of " + role + ", or run the pod as one that is bound to it"
	case strings.Contains(message, "namespace not authorized"):
		return "add the pod's namespace to bound_service_account_namespaces of " + role + ", or use a role for this namespace"
	case strings.Contains(message, "invalid role name"), strings.Contains(message, "could not be found"):
		return "create the role, or correct the attribute role"
	case strings.Contains(message, wrongAudience):
		return "set the attribute audience to that of the role; the CSIDriver's tokenRequests must offer it (annotated pods: agent-service-account-token-volume-name)"
	}
	return "check " + role
}

// refusal returns Vault's message if it refused a login.
func refusal(err error) (message string, ok bool) {
	var response *api.ResponseError
	if !errors.As(err, &response) {
		return "", false
	}
	switch response.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return messageOf(response), true
	}
	return "", false
}

// requestFailure gives an error of the api.Client its kind.
func requestFailure(err error) error {
	var response *api.ResponseError
	if !errors.As(err, &response) {
		return noAnswer(err)
	}
	message := messageOf(response)
	switch response.StatusCode {
	case http.StatusForbidden:
		if strings.Contains(message, "invalid token") {
			return fmt.Errorf("%w: %s; the token was revoked or has expired", ErrTokenGone, message)
		}
		return fmt.Errorf("%w: %s; grant the path in a policy of the role", ErrDenied, message)
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return fmt.Errorf("%w: %s", ErrRefused, message)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, message)
	}
	return fmt.Errorf("%w: HTTP status %d: %s", ErrUnavailable, response.StatusCode, message)
}

// noAnswer is for a request without an answer of Vault that the driver accepts.
func noAnswer(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // the caller says what was requested
	}
	var body *bodyError
	if errors.As(err, &body) && (kindOf(err) != nil || errors.Is(err, errNotVault)) {
		err = body.err
	}
	if isPage(err) {
		err = fmt.Errorf("%w (%w)", errNotVault, err)
	}
	switch {
	case kindOf(err) != nil:
		return err
	case errors.Is(err, errBreakerOpen): // first: it wraps the error of an earlier request
		return fmt.Errorf("%w: %w%s", ErrUnavailable, err, connectionHint(err))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer in time (%w); Vault is overloaded, or the network on the way to it drops packets", ErrUnavailable, err)
	case errors.Is(err, errNotVault):
		return fmt.Errorf("%w: %w; check the address, and the proxies in front of Vault", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w%s", ErrUnavailable, err, connectionHint(err))
}

// kindOf returns nil for an error without a kind.
func kindOf(err error) error {
	for _, kind := range []error{ErrInvalid, ErrTooLarge, ErrTokenGone, ErrDenied, ErrRefused, ErrNotFound, ErrUnavailable} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return nil
}

// isPage recognizes an answer that is not JSON as Vault writes it.
func isPage(err error) bool {
	return isError[*json.SyntaxError](err) || isError[*json.UnmarshalTypeError](err)
}

// messageOf returns Vault's errors in one line.
func messageOf(response *api.ResponseError) string {
	message := oneLine(strings.NewReplacer("1 error occurred:", "", "*", "").Replace(strings.Join(response.Errors, "; ")))
	if message == "" {
		return http.StatusText(response.StatusCode)
	}
	return message
}

// maxQuoted is how many bytes of a response, which may be a proxy's page, an error quotes.
const maxQuoted = 256

func oneLine(text string) string {
	return limits.Truncate(strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " "), maxQuoted)
}

// shorten cuts the text of an error that may quote a response: a status line, a
// header, the names in a certificate.
func shorten(err error) error {
	if text := err.Error(); len(text) > maxQuoted {
		return &shortError{limits.Truncate(text, maxQuoted), err}
	}
	return err
}

type shortError struct {
	text string
	err  error
}

func (e *shortError) Error() string { return e.text }
func (e *shortError) Unwrap() error { return e.err }

// redact removes tokens from an error, in case the answer repeats them.
func redact(err error, tokens ...string) error {
	text := err.Error()
	for _, token := range tokens {
		if token != "" {
			text = strings.ReplaceAll(text, token, "[redacted]")
		}
	}
	if text == err.Error() {
		return err
	}
	if kind := kindOf(err); kind != nil {
		return fmt.Errorf("%w: %s", kind, strings.TrimPrefix(text, kind.Error()+": "))
	}
	return errors.New(text)
}
