package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"k8s.io/klog/v2"
)

func answered(status int, message ...string) error {
	return &api.ResponseError{StatusCode: status, Errors: message}
}

func TestLoginFailure(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		kind error
		want string
	}{
		"wrong service account":     {answered(403, "service account name not authorized"), ErrRefused, "service account name not authorized; add the service account to bound_service_account_names"},
		"wrong namespace":           {answered(403, "namespace not authorized"), ErrRefused, "namespace not authorized; add the pod's namespace to bound_service_account_namespaces"},
		"unknown role":              {answered(400, `invalid role name "nope"`), ErrRefused, `invalid role name "nope"; create the role`},
		"wrong audience":            {answered(403, "invalid audience (aud) claim: audience claim does not match any expected audience"), ErrRefused, "set the attribute audience"},
		"expired":                   {answered(403, "invalid expiration time (exp) claim: token is expired"), ErrRefused, "token is expired; check role"},
		"no reason":                 {answered(403, "permission denied"), ErrUnavailable, "TokenReview of the pod's token failed"},
		"no reason, one token":      {answered(403, "permission denied"), ErrUnavailable, "or the role takes a token of another audience (attribute audience)"},
		"sealed":                    {answered(503, "Vault is sealed"), ErrUnavailable, "HTTP status 503: Vault is sealed"},
		"too many requests":         {answered(429, "request path \"x\": rate limit quota exceeded"), ErrUnavailable, "HTTP status 429"},
		"internal error":            {answered(500, "1 error occurred:\n\t* boom\n\n"), ErrUnavailable, "HTTP status 500: boom"},
		"standby without a leader":  {answered(412), ErrUnavailable, "Precondition Failed"},
		"nobody answers":            {errors.New("dial tcp: connection refused"), ErrUnavailable, "connection refused"},
		"a page of something else":  {answered(404, strings.Repeat("<html>", 200)), ErrRefused, "<html><..."},
		"an empty answer to a POST": {answered(http.StatusMethodNotAllowed), ErrRefused, "Method Not Allowed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := loginFailure(test.err, Credentials{Mount: "auth/kubernetes", Role: "app", JWT: "jwt"})
			if !errors.Is(got, test.kind) || !strings.Contains(got.Error(), test.want) {
				t.Errorf("got  %v\nwant %v: … %s", got, test.kind, test.want)
			}
		})
	}
}

func TestRequestFailure(t *testing.T) {
	t.Parallel()
	tests := map[int]error{400: ErrRefused, 403: ErrRefused, 404: ErrNotFound, 405: ErrRefused, 412: ErrUnavailable, 429: ErrUnavailable, 472: ErrUnavailable, 500: ErrUnavailable, 502: ErrUnavailable, 503: ErrUnavailable}
	for status, kind := range tests {
		if got := requestFailure(answered(status, "message")); !errors.Is(got, kind) || !strings.Contains(got.Error(), "message") {
			t.Errorf("%d: got %v, want %v", status, got, kind)
		}
	}
}

// An open breaker refuses a request, and names the error of the probe.
func TestErrorOfAnOpenBreaker(t *testing.T) {
	t.Parallel()
	b := &breaker{logger: klog.Background(), probe: func(context.Context) error { return context.DeadlineExceeded }}
	for range failuresToOpen {
		if err := b.allow(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.report(t.Context(), nil, errors.New("connection refused"))
	}
	got := requestFailure(b.allow(t.Context()))
	if !errors.Is(got, ErrUnavailable) || got.Error() != "unavailable for now: the circuit breaker is open, and the driver tries again within 5s, after: context deadline exceeded" {
		t.Errorf("got %v", got)
	}
}

func TestDenialOfADeadToken(t *testing.T) {
	t.Parallel()
	denied := requestFailure(answered(403, "1 error occurred:\n\t* permission denied\n\n"))
	if !errors.Is(denied, ErrDenied) || errors.Is(denied, ErrTokenGone) || !strings.Contains(denied.Error(), "grant the path") {
		t.Errorf("a policy's denial: %v", denied)
	}
	gone := redact(requestFailure(answered(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n", "hvs.canary")), "hvs.canary")
	if !errors.Is(gone, ErrTokenGone) || !errors.Is(gone, ErrDenied) || strings.Contains(gone.Error(), "canary") || strings.Contains(gone.Error(), "grant") {
		t.Errorf("a dead token's denial: %v", gone)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	err := redact(fmt.Errorf("%w: token s.canary is bad", ErrRefused), "s.canary")
	if strings.Contains(err.Error(), "canary") || !errors.Is(err, ErrRefused) || err.Error() != "refused by Vault: token [redacted] is bad" {
		t.Errorf("got %v", err)
	}
	if plain := errors.New("s.canary"); strings.Contains(redact(plain, "s.canary").Error(), "canary") {
		t.Error("an error of no kind keeps its token")
	}
}
