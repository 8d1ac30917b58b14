package vault

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// A page that is short enough is quoted in short.
func TestPagesAreQuotedInShort(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"a page":              strings.Repeat("<html>", 10_000),
		"an error of Vault's": `{"errors":["` + strings.Repeat("denied ", 9_000) + `"]}`,
		"many errors":         `{"errors":["` + strings.Repeat(`x","`, 4_000) + `"]}`,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(server.Close)
		if err := newTestClientAt(t, server.URL).readAny(); !errors.Is(err, ErrDenied) || len(err.Error()) > limits.ErrorBytes.Max()+100 {
			t.Errorf("%s: %d bytes: %v", name, len(err.Error()), err)
		}
	}
}

// sending is a server that sends a body after a beginning, until nobody reads it or it
// has sent 64 MiB, and counts the MiB.
func sending(t *testing.T, status int, beginning string) (address string, sent *atomic.Int32) {
	t.Helper()
	sent = &atomic.Int32{}
	address = startVault(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, beginning)
		part := strings.Repeat("x", 1<<20)
		for range 64 {
			if _, err := io.WriteString(w, part); err != nil {
				return
			}
			sent.Add(1)
		}
	})
	return address, sent
}

// A response is refused while it comes, not when all of it is in memory, and an error
// is quoted in short.
func TestLongAnswersAreCutOff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status    int
		beginning string
		ask       func(*Client) error
		kind      error
		want      string
	}{
		"a secret": {200, `{"data":{"v":"`, (*Client).readAny, ErrTooLarge, "exceed the limit of 4194304 (response-bytes); check that the address is a Vault"},
		"a list":   {200, `{"data":{"keys":["`, (*Client).listAny, ErrTooLarge, "(response-bytes)"},
		"a write":  {200, `{"data":{"v":"`, (*Client).writeAny, ErrTooLarge, "(response-bytes)"},
		"a token":  {200, `{"auth":{"client_token":"`, (*Client).renewAny, ErrUnavailable, "exceed the limit of 262144 (auth-response-bytes)"},
		"an error": {400, `{"errors":["`, (*Client).readAny, ErrUnavailable, "the answer is not Vault's: "},
		"a page":   {403, "<html>", (*Client).readAny, ErrUnavailable, "the answer is not Vault's: "},
		"no space": {503, "", (*Client).readAny, ErrUnavailable, "the answer is not Vault's: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, sent := sending(t, test.status, test.beginning)
			err := test.ask(newTestClientAt(t, address))
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) || len(err.Error()) > limits.ErrorBytes.Max() {
				t.Errorf("got %d bytes: %v", len(err.Error()), err)
			}
			if got := sent.Load(); got > 32 {
				t.Errorf("%d MiB were sent", got)
			}
		})
	}
}

func (s *Client) readAny() error {
	_, err := s.Read(context.Background(), "kv/data/app")
	return err
}

func (s *Client) listAny() error {
	_, err := s.List(context.Background(), "kv/metadata/app")
	return err
}

func (s *Client) writeAny() error {
	_, err := s.Write(context.Background(), "pki/issue/app", nil)
	return err
}

func (s *Client) renewAny() error {
	_, err := s.RenewToken(context.Background())
	return err
}

// answering returns the address of a Vault with one answer to each read.
func answering(t *testing.T, body string) string {
	t.Helper()
	return startVault(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

func TestResponseAtItsLimitsAndOneAbove(t *testing.T) {
	t.Parallel()
	long := func(n int) string {
		const frame = `{"request_id":"1","data":{"v":""}}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", n-len(frame))+`"`, 1)
	}
	deep := func(n int) string { // the object and its data are two levels
		return `{"request_id":"1","data":{"v":` + strings.Repeat("[", n-2) + strings.Repeat("]", n-2) + `}}`
	}
	values := func(n int) string { // the object, its id, its data and the list are four values
		return `{"request_id":"1","data":{"v":[` + strings.Repeat("0,", n-5) + `0]}}`
	}
	for name, test := range map[string]struct {
		limit limits.Limit
		body  func(int) string
	}{
		"bytes":  {limits.ResponseBytes, long},
		"depth":  {limits.ResponseDepth, deep},
		"values": {limits.VolumeResponseValues, values},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := newTestClientAt(t, answering(t, test.body(test.limit.Max()))).readAny(); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			err := newTestClientAt(t, answering(t, test.body(test.limit.Max()+1))).readAny()
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), test.limit.String()) {
				t.Errorf("one above the limit: %v", err)
			}
		})
	}
}

// The driver requests no compression and inflates nothing, so no bomb can expand.
func TestCompressedAnswersAreNotInflated(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			t.Error("compression is requested")
		}
		w.Header().Set("Content-Encoding", "gzip")
		bomb := gzip.NewWriter(w)
		_, _ = bomb.Write(make([]byte, 1<<20))
		_ = bomb.Close()
	}))
	t.Cleanup(server.Close)
	if err := newTestClientAt(t, server.URL).readAny(); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "is not Vault's") {
		t.Errorf("got %v", err)
	}
}

func TestLongHeadersAreRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	}))
	t.Cleanup(server.Close)
	if err := newTestClientAt(t, server.URL).readAny(); !errors.Is(err, ErrUnavailable) || len(err.Error()) > limits.ErrorBytes.Max() {
		t.Errorf("got %v", err)
	}
}

// Vault may have made credentials for a response that breaks off, so it is not requested
// again at once.
func TestResponseThatBreaksOffIsNotRetried(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	address := startVault(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"request_id"`)
	})
	client := newTestClient(t, NewClientPool(Config{}), address, ClientOptions{}, "token")
	if err := client.readAny(); !errors.Is(err, ErrUnavailable) || requests.Load() != 1 {
		t.Errorf("requested %d times: %v", requests.Load(), err)
	}
}

func TestResultSealedNeedsVaultsMessage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		body   string
		want   Result
	}{
		"Vault's":         {503, `{"errors":["Vault is sealed"]}`, ResultSealed},
		"one of several":  {503, `{"errors":["1 error occurred:\n\t* Vault is sealed\n\n"]}`, ResultSealed},
		"a load balancer": {503, "<html>Service Unavailable", ResultError},
		"on request":      {503, `{"initialized":true,"sealed":false}`, ResultError},
		"a namespace":     {503, `{"errors":["API access to this namespace has been locked by an administrator"]}`, ResultError},
		"an engine":       {500, `{"errors":["Vault is sealed"]}`, ResultError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://vault/v1/x", nil)
			if _, got, err := newTestEndpoint(sealedAnswer{test.status, test.body}).send(request); got != test.want || err != nil {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
}

// sealedAnswer answers each request.
type sealedAnswer struct {
	status int
	body   string
}

func (s sealedAnswer) RoundTrip(*http.Request) (*http.Response, error) {
	return responseOf(s.status, s.body), nil
}

// A proxy may answer 200 to anything, and the token would live on.
func TestRevocationNeedsVaultsAnswer(t *testing.T) {
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
			err := newTestClientAt(t, server.URL).Revoke(t.Context())
			if name == "a page" && !strings.Contains(err.Error(), "the answer is not Vault's (invalid character '<'") {
				t.Errorf("the message is %v", err)
			}
			if test.ok && err != nil || !test.ok && !errors.Is(err, ErrUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func newTestClientAt(t *testing.T, address string) *Client {
	t.Helper()
	client, err := NewClientPool(Config{}).Client(t.Context(), Endpoint{Address: address}, ClientOptions{MaxRetries: NoRetries}, Token{Secret: "token"})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// An answer without data is not a secret: it would empty the files that show it.
func TestAnswersWithoutDataAreNoSecrets(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status  int
		body    string
		kind    error // nil for a secret
		message string
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
			address := startVault(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			})
			client := newTestClient(t, NewClientPool(Config{}), address, ClientOptions{MaxRetries: NoRetries}, "canary-token")
			secret, err := client.Read(t.Context(), "kv/app")
			if test.kind == nil && (err != nil || secret == nil) {
				t.Errorf("got %v, %v", secret, err)
			}
			if test.kind != nil && (!errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.message)) {
				t.Errorf("got %v, want %v … %s", err, test.kind, test.message)
			}
		})
	}
}

// A proxy without a connection to Vault may answer 404 without a body. A list would have
// no names then, and a write no answer.
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
				client := newTestClientAt(t, server.URL)
				if err := run(client); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "the answer is not Vault's: it is empty") {
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
			client := newTestClientAt(t, server.URL)
			if secret, err := client.Read(t.Context(), "kv/app"); !errors.Is(err, kind) || kind == nil && secret.Data["keys"] == nil {
				t.Errorf("read %v, %v", secret, err)
			}
			if names, err := client.List(t.Context(), "kv/app"); !errors.Is(err, kind) || kind == nil && len(names) != 1 {
				t.Errorf("listed %q, %v", names, err)
			}
		})
	}
}
