package vault

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// An answer without data is no secret: files that show it would be written with
// nothing in them.
func TestAnswersWithoutDataAreNoSecrets(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		kind   error // nil for a secret
		words  string
	}{
		"a warning with status 404":        {http.StatusNotFound, invalidPath, ErrNotFound, "no such secret: Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use.; write data/"},
		"a warning that repeats the token": {http.StatusNotFound, `{"request_id":"1","warnings":["no\n  canary-token"]}`, ErrNotFound, "no such secret: no [redacted]"},
		"a warning alone":                  {http.StatusOK, `{"request_id":"1","data":null,"warnings":["gone"]}`, ErrNotFound, "no such secret: gone"},
		"Vault's envelope alone":           {http.StatusOK, `{"request_id":"1","data":null}`, ErrNotFound, "nothing is stored there"},
		"nothing with status 204":          {http.StatusNoContent, ``, ErrNotFound, "nothing is stored there"},
		"a deleted version":                {http.StatusNotFound, `{"request_id":"1","data":{"data":null,"metadata":{"version":1,"deletion_time":"2026-01-02T03:04:05Z"}}}`, ErrNotFound, "or it is deleted"},
		"data":                             {http.StatusOK, `{"request_id":"1","data":{"v":"one"}}`, nil, ""},
		"data without an entry":            {http.StatusOK, `{"request_id":"1","data":{}}`, nil, ""},
		"data with a warning":              {http.StatusOK, `{"request_id":"1","data":{"v":"one"},"warnings":["old"]}`, nil, ""},
		"data that looks like a version":   {http.StatusOK, `{"request_id":"1","data":{"data":null,"metadata":"x"}}`, nil, ""},
		"a token":                          {http.StatusOK, `{"request_id":"1","auth":{"client_token":"x"}}`, nil, ""},
		"a wrapping token":                 {http.StatusOK, `{"request_id":"1","wrap_info":{"token":"x"}}`, nil, ""},
		"a lease":                          {http.StatusOK, `{"request_id":"1","lease_id":"x"}`, nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "internal/ui/mounts") {
					w.WriteHeader(http.StatusForbidden) // the answer must do
					return
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			defer server.Close()
			session := resume(t, NewClientPool(Config{}), server.URL, ClientOptions{MaxRetries: NoRetries}, "canary-token")
			secret, err := session.Read(t.Context(), "kv/app")
			if test.kind == nil && (err != nil || secret == nil) {
				t.Errorf("got %v, %v", secret, err)
			}
			if test.kind != nil && (!errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.words)) {
				t.Errorf("got %v, want %v … %s", err, test.kind, test.words)
			}
		})
	}
}

// A proxy that has lost its way to Vault may say 404 and nothing else. A list would
// have no names then, and a write no answer.
func TestEmptyPagesAreNotVaultsNotFound(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusNotFound} {
		for verb, run := range map[string]func(*Client) error{
			"read":  func(s *Client) error { _, err := s.Read(t.Context(), "kv/app"); return err },
			"list":  func(s *Client) error { _, err := s.List(t.Context(), "kv/app"); return err },
			"write": func(s *Client) error { _, err := s.Write(t.Context(), "kv/app", nil); return err },
		} {
			t.Run(fmt.Sprint(verb, " with status ", status), func(t *testing.T) {
				t.Parallel()
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, "internal/ui/mounts") {
						_, _ = io.WriteString(w, ofVersion1)
						return
					}
					w.WriteHeader(status)
				}))
				defer server.Close()
				session := resume(t, NewClientPool(Config{}), server.URL, ClientOptions{MaxRetries: NoRetries}, "token")
				if err := run(session); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), errEmpty.Error()) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// JSON of another program is no KV secret. Other engines answer with any JSON.
func TestKVAnswersWithAnID(t *testing.T) {
	t.Parallel()
	for engine, kind := range map[string]error{"kv": ErrUnavailable, "identity": nil} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "internal/ui/mounts") {
					fmt.Fprintf(w, `{"request_id":"1","data":{"path":"kv/","type":%q}}`, engine)
					return
				}
				_, _ = io.WriteString(w, `{"keys":["x"]}`)
			}))
			defer server.Close()
			session := resume(t, NewClientPool(Config{}), server.URL, ClientOptions{MaxRetries: NoRetries}, "token")
			if secret, err := session.Read(t.Context(), "kv/app"); !errors.Is(err, kind) || kind == nil && secret.Data["keys"] == nil {
				t.Errorf("read %v, %v", secret, err)
			}
			if names, err := session.List(t.Context(), "kv/app"); !errors.Is(err, kind) || kind == nil && len(names) != 1 {
				t.Errorf("listed %q, %v", names, err)
			}
		})
	}
}
