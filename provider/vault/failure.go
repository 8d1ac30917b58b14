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

// The kinds of failure, for errors.Is.
var (
	// ErrInvalid is a request that no Vault could answer.
	ErrInvalid = errors.New("invalid request")
	// ErrRefused is an answer that repeating the request will not change.
	ErrRefused = errors.New("refused by Vault")
	// ErrDenied is an ErrRefused for want of permission: of a policy, or of a token
	// that is alive.
	ErrDenied = fmt.Errorf("%w", ErrRefused)
	// ErrTokenGone is an ErrDenied of a token that Vault does not know, or not any
	// more. Older versions of Vault do not tell it from other denials.
	ErrTokenGone = fmt.Errorf("%w", ErrDenied)
	// ErrNotFound is a secret that is not there.
	ErrNotFound = errors.New("no such secret")
	// ErrUnavailable is anything that may be otherwise in a moment.
	ErrUnavailable = errors.New("unavailable for now")
)

// loginFailure adds to Vault's words what they mean for whoever reads them on
// a pod.
func loginFailure(err error, login Credentials) error {
	words, ok := refusal(err)
	if !ok {
		return requestFailure(err)
	}
	if words == noReason {
		// Vault says the same when it could not ask the API server about the token,
		// so the answer is not final.
		audience := ""
		if login.JWT != "" && login.FallbackJWT == "" {
			audience = ", or the role takes a token of another audience (attribute audience)"
		}
		return fmt.Errorf("%w: permission denied; Vault gives no reason: either %s is not a mounted auth method, or Vault's TokenReview of the pod's token failed (see Vault's own log)%s", ErrUnavailable, login.Mount, audience)
	}
	return fmt.Errorf("%w: %s; %s", ErrRefused, words, loginHint(words, login))
}

func loginHint(words string, login Credentials) string {
	role := fmt.Sprintf("role %q of %s", login.Role, login.Mount)
	if login.Role == "" {
		role = "the role of " + login.Mount
	}
	switch {
	case strings.Contains(words, "invalid role or secret ID"):
		return "check the role id and the secret id in the volume's Secret; a secret id may have expired or been used up"
	case strings.Contains(words, "missing role"):
		return "set the attribute role, or default_role of " + login.Mount
	case strings.Contains(words, "service account name not authorized"):
		return "add the service account to bound_service_account_names of " + role + ", or run the pod as one that is bound to it"
	case strings.Contains(words, "namespace not authorized"):
		return "add the pod's namespace to bound_service_account_namespaces of " + role + ", or use a role for this namespace"
	case strings.Contains(words, "invalid role name"), strings.Contains(words, "could not be found"):
		return "create the role, or correct the attribute role"
	case strings.Contains(words, wrongAudience):
		return "set the attribute audience to that of the role; the CSIDriver's tokenRequests must offer it (annotated pods: agent-service-account-token-volume-name)"
	}
	return "check " + role
}

// refusal returns Vault's words if it answered a login with a refusal.
func refusal(err error) (string, bool) {
	var response *api.ResponseError
	if !errors.As(err, &response) {
		return "", false
	}
	switch response.StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return answer(response), true
	}
	return "", false
}

// requestFailure sorts an error of the client into one of the kinds.
func requestFailure(err error) error {
	var response *api.ResponseError
	if !errors.As(err, &response) {
		return unanswered(err)
	}
	switch response.StatusCode {
	case http.StatusForbidden:
		words := answer(response)
		if strings.Contains(words, "invalid token") {
			return fmt.Errorf("%w: %s; the token was revoked or has expired", ErrTokenGone, words)
		}
		return fmt.Errorf("%w: %s; grant the path in a policy of the role", ErrDenied, words)
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return fmt.Errorf("%w: %s", ErrRefused, answer(response))
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, answer(response))
	}
	return fmt.Errorf("%w: HTTP status %d: %s", ErrUnavailable, response.StatusCode, answer(response))
}

// unanswered is a failure for want of Vault's answer.
func unanswered(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err // who asked says for what
	}
	var body *bodyError
	switch {
	case errors.As(err, &body) && (errors.Is(err, ErrTooLarge) || errors.Is(err, errBusy)):
		return body.err
	case errors.As(err, &body) && errors.Is(err, errNotVaults):
		return fmt.Errorf("%w: %w", ErrUnavailable, body.err)
	case errors.Is(err, errBreakerOpen): // first, as it wraps what befell others; this one was not sent
		return fmt.Errorf("%w: %w%s", ErrUnavailable, err, connectionHint(err))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: no answer in time (%w); Vault is overloaded, or the network on the way to it drops packets", ErrUnavailable, err)
	case errors.Is(err, errEmpty):
		return fmt.Errorf("%w: %w; check the address, and what stands between", ErrUnavailable, errEmpty)
	case isPage(err):
		return fmt.Errorf("%w: the answer is not Vault's (%w); check the address, and what stands between", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w%s", ErrUnavailable, err, connectionHint(err))
}

// isPage recognises an answer that is not JSON as Vault writes it.
func isPage(err error) bool {
	return asError[*json.SyntaxError](err) || asError[*json.UnmarshalTypeError](err)
}

// answer is what Vault said, on one line.
func answer(response *api.ResponseError) string {
	words := oneLine(strings.NewReplacer("1 error occurred:", "", "*", "").Replace(strings.Join(response.Errors, "; ")))
	if words == "" {
		return http.StatusText(response.StatusCode)
	}
	return words
}

// oneLine cuts a page of some proxy between short.
func oneLine(words string) string {
	return limits.Truncate(strings.Join(strings.Fields(strings.ToValidUTF8(words, "")), " "), maxWords)
}

// maxWords is as much as an error quotes of what Vault, or what answers in its place,
// has sent.
const maxWords = 256

// shorten cuts the text of an error that may quote a response: a status line, a
// header, the names in a certificate.
func shorten(err error) error {
	if text := err.Error(); len(text) > maxWords {
		return &shortened{limits.Truncate(text, maxWords), err}
	}
	return err
}

type shortened struct {
	text string
	err  error
}

func (e *shortened) Error() string { return e.text }
func (e *shortened) Unwrap() error { return e.err }

// redact keeps tokens out of a message, should whoever answered repeat them.
func redact(err error, tokens ...string) error {
	clean := err.Error()
	for _, token := range tokens {
		if token != "" {
			clean = strings.ReplaceAll(clean, token, "[redacted]")
		}
	}
	if clean == err.Error() {
		return err
	}
	for _, kind := range []error{ErrInvalid, ErrTooLarge, ErrTokenGone, ErrDenied, ErrRefused, ErrNotFound, ErrUnavailable} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %s", kind, strings.TrimPrefix(clean, kind.Error()+": "))
		}
	}
	return errors.New(clean)
}
