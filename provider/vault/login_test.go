package vault

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

// What answers a login with OK and without a token is not Vault, and may be gone in
// a moment: the pod waits. If Vault itself gives none, it is final.
func TestLoginWithoutAToken(t *testing.T) {
	t.Parallel()
	const notVault = "check the address, and what stands between"
	tests := map[string]struct {
		status int
		body   string
		kind   error
		want   string
	}{
		"nothing":            {200, "", ErrUnavailable, "the answer is empty, which none of Vault's is but with status 204; " + notVault},
		"no content":         {204, "", ErrUnavailable, "the answer holds no token, so it is not Vault's; " + notVault},
		"null":               {200, "null", ErrUnavailable, notVault},
		"an empty object":    {200, "{}", ErrUnavailable, notVault},
		"data of another":    {200, `{"status":"ok"}`, ErrUnavailable, notVault},
		"auth is null":       {200, `{"request_id":"1","auth":null}`, ErrUnavailable, notVault},
		"auth is empty":      {200, `{"request_id":"1","auth":{}}`, ErrUnavailable, notVault},
		"no token":           {200, `{"auth":{"client_token":"","policies":["default"]}}`, ErrUnavailable, notVault},
		"a page":             {200, "<html>", ErrUnavailable, notVault},
		"a redirect":         {307, "", ErrUnavailable, notVault},
		"a redirect, a page": {307, "<html>", ErrUnavailable, notVault},
		"a second factor":    {200, `{"auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"x"}}}`, ErrRefused, "it wants a second factor, which a pod cannot give; take auth/jwt out of the MFA login enforcement"},
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
			_, err := NewServers(klog.Background(), time.Now).Login(t.Context(), Endpoint{Address: server.URL}, Options{}, Login{Mount: "auth/jwt", Role: "app"})
			if !errors.Is(err, test.kind) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v: … %s", err, test.kind, test.want)
			}
		})
	}
}

// An empty answer to a read is no secret that does not exist: that would be final.
func TestEmptyAnswersAreNotVaults(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer server.Close()
	session := resumeAt(t, server.URL)
	for name, ask := range map[string]func() error{
		"read":  func() error { _, err := session.Read(t.Context(), "kv/data/app"); return err },
		"list":  func() error { _, err := session.List(t.Context(), "kv/metadata/app"); return err },
		"write": func() error { _, err := session.Write(t.Context(), "pki/issue/app", nil); return err },
		"renew": func() error { _, err := session.RenewToken(t.Context()); return err },
	} {
		if err := ask(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the answer is empty") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
