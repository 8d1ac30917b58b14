package vault

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// A proxy that answers a login without a token is a transient failure: the pod waits. A
// refusal of Vault itself is final.
func TestLoginWithoutAToken(t *testing.T) {
	t.Parallel()
	const notVault = "the answer is not Vault's"
	tests := map[string]struct {
		status int
		body   string
		kind   error
		want   string
	}{
		"nothing":            {200, "", ErrUnavailable, notVault + ": it is empty; check the address, and the proxies in front of Vault"},
		"no content":         {204, "", ErrUnavailable, notVault + ": it holds no token; check the address"},
		"null":               {200, "null", ErrUnavailable, notVault},
		"an empty object":    {200, "{}", ErrUnavailable, notVault},
		"data of another":    {200, `{"status":"ok"}`, ErrUnavailable, notVault},
		"auth is null":       {200, `{"request_id":"1","auth":null}`, ErrUnavailable, notVault},
		"auth is empty":      {200, `{"request_id":"1","auth":{}}`, ErrUnavailable, notVault},
		"no token":           {200, `{"auth":{"client_token":"","policies":["default"]}}`, ErrUnavailable, notVault},
		"a page":             {200, "<html>", ErrUnavailable, notVault},
		"a redirect":         {307, "", ErrUnavailable, notVault},
		"a redirect, a page": {307, "<html>", ErrUnavailable, notVault},
		"a second factor":    {200, `{"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"x"}}}`, ErrRefused, "it requires a second factor, which a pod cannot give; take auth/jwt out of the MFA login enforcement"},
		"a token":            {200, `{"auth":{"client_token":"hvs.x"}}`, nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", r.URL.Path)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			_, err := NewClientPool(Config{}).Login(t.Context(), Endpoint{Address: server.URL}, ClientOptions{}, Credentials{Mount: "auth/jwt", Role: "app"})
			if !errors.Is(err, test.kind) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v: … %s", err, test.kind, test.want)
			}
		})
	}
}

// An empty answer is a transient failure. "No such secret" would be final.
func TestEmptyAnswersAreNotVaults(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer server.Close()
	client := newTestClientAt(t, server.URL)
	for name, ask := range map[string]func() error{
		"read":  func() error { _, err := client.Read(t.Context(), "kv/data/app"); return err },
		"list":  func() error { _, err := client.List(t.Context(), "kv/metadata/app"); return err },
		"write": func() error { _, err := client.Write(t.Context(), "pki/issue/app", nil); return err },
		"renew": func() error { _, err := client.RenewToken(t.Context()); return err },
	} {
		if err := ask(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the answer is not Vault's: it is empty") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A role may take only one of a pod's two tokens. A refusal for another reason than the
// audience is the error.
func TestLoginFallsBackToTheOtherToken(t *testing.T) {
	t.Parallel()
	const audience, noReason = "invalid audience (aud) claim: audience claim does not match any expected audience", "permission denied"
	tests := map[string]struct {
		answers map[string]string // to each token; empty for a token of Vault's
		want    string            // of the error
		sent    []string          // by two logins
	}{
		"the first":                         {map[string]string{"first": ""}, "", []string{"first", "first"}},
		"the other, for its audience":       {map[string]string{"first": audience, "other": ""}, "", []string{"first", "other", "first", "other"}},
		"the other, for no reason":          {map[string]string{"first": noReason, "other": ""}, "", []string{"first", "other", "first", "other"}},
		"neither, for their audiences":      {map[string]string{"first": audience, "other": audience}, "invalid audience", []string{"first", "other", "first", "other"}},
		"neither, the first for no reason":  {map[string]string{"first": noReason, "other": audience}, "Vault gives no reason", []string{"first", "other", "first", "other"}},
		"neither, the other for a reason":   {map[string]string{"first": noReason, "other": "namespace not authorized"}, "namespace not authorized; add", []string{"first", "other", "first", "other"}},
		"neither, the first for a reason":   {map[string]string{"first": "namespace not authorized"}, "namespace not authorized; add", []string{"first", "first"}},
		"the first, and no role has a name": {map[string]string{"first": `invalid role name "app"`}, "create the role", []string{"first", "first"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var login struct{ JWT string }
				if err := json.NewDecoder(r.Body).Decode(&login); err != nil {
					t.Error(err)
				}
				sent = append(sent, login.JWT)
				if message := test.answers[login.JWT]; message != "" {
					w.WriteHeader(http.StatusForbidden)
					_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{message}})
					return
				}
				_, _ = io.WriteString(w, `{"auth":{"client_token":"hvs.x"}}`)
			}))
			defer server.Close()
			observer := &fallbacks{}
			pool := NewClientPool(Config{Observer: observer})
			for range 2 {
				_, err := pool.Login(t.Context(), Endpoint{Address: server.URL}, ClientOptions{}, Credentials{Mount: "auth/kubernetes", Role: "app", JWT: "first", FallbackJWT: "other"})
				if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v, want … %s", err, test.want)
				}
			}
			if !slices.Equal(sent, test.sent) {
				t.Errorf("Vault got %q, want %q", sent, test.sent)
			}
			others := 0
			for _, each := range sent {
				if each == "other" {
					others++
				}
			}
			if observer.count != others {
				t.Errorf("%d fallbacks are observed, want %d", observer.count, others)
			}
		})
	}
}

// fallbacks counts them.
type fallbacks struct{ count int }

func (f *fallbacks) ObserveLoginFallback()                           { f.count++ }
func (f *fallbacks) ObserveRequest(Operation, Result, time.Duration) {}
