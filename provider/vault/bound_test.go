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

func TestLongAnswersAreRefused(t *testing.T) {
	for name, status := range map[string]int{"a secret": http.StatusOK, "an error": http.StatusBadRequest} {
		t.Run(name, func(t *testing.T) {
			read := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"errors":["`)
				part := strings.Repeat("x", 1<<20)
				for range 64 {
					if _, err := io.WriteString(w, part); err != nil {
						return
					}
					read++
				}
			}))
			defer server.Close()
			session := resumeAt(t, server.URL)
			_, err := session.client.Logical().ReadWithContext(t.Context(), "kv/app")
			err = session.failure("read", "kv/app", err)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the answer is longer than 4 MiB") {
				t.Errorf("got %v", err)
			}
			server.Close()
			if read > 32 {
				t.Errorf("%d MiB were sent", read)
			}
		})
	}
}

// What is not Vault may say OK to anything; the token would live on.
func TestRevocationIsBelievedToVaultAlone(t *testing.T) {
	tests := map[string]struct {
		status int
		body   string
		ok     bool
	}{
		"Vault's":                {http.StatusNoContent, "", true},
		"Vault's with a warning": {http.StatusOK, `{"request_id":"1","warnings":["x"]}`, true},
		"a page":                 {http.StatusOK, "<html>", false},
		"nothing":                {http.StatusOK, "", false},
		"JSON of another":        {http.StatusOK, `{"status":"ok"}`, false},
		"an empty object":        {http.StatusOK, `{}`, false},
		"null":                   {http.StatusOK, `null`, false},
		"done later":             {http.StatusAccepted, `{"request_id":"1"}`, false},
		"a redirect to itself":   {http.StatusTemporaryRedirect, "", false},
		"a redirect with a page": {http.StatusTemporaryRedirect, "<html>", false},
		"a redirect with JSON":   {http.StatusTemporaryRedirect, `{"request_id":"1"}`, false},
		"not changed":            {http.StatusNotModified, "", false},
		"a page that refuses":    {http.StatusForbidden, "<html>", false},
		"a page, bad request":    {http.StatusBadRequest, "<html>", false},
		"not there, in JSON":     {http.StatusNotFound, `{"errors":[]}`, false},
		"nothing found":          {http.StatusNotFound, "404 page not found", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/v1/auth/token/revoke-self")
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			err := resumeAt(t, server.URL).Revoke(t.Context())
			if name == "a page" && !strings.Contains(err.Error(), "the answer is not Vault's (invalid character '<'") {
				t.Errorf("the message is %v", err)
			}
			if test.ok && err != nil || !test.ok && !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func resumeAt(t *testing.T, address string) *Session {
	t.Helper()
	session, err := NewServers(klog.Background(), time.Now).Resume(Endpoint{Address: address}, Options{MaxRetries: -1}, Token{Secret: "token"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}
