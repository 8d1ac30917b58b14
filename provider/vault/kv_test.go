package vault

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Which mounts are KV is Vault's to say, once for each; and what it does not say is
// no KV.
func TestIsKV(t *testing.T) {
	const app = "/v1/sys/internal/ui/mounts/team/app"
	tests := map[string]struct {
		status int
		body   string
		want   bool
		known  bool
		err    error
	}{
		"version 2":         {http.StatusOK, `{"request_id":"1","data":{"path":"team/","type":"kv","options":{"version":"2"}}}`, true, true, nil},
		"version 1":         {http.StatusOK, `{"request_id":"1","data":{"path":"team/","type":"kv","options":null}}`, true, true, nil},
		"a database":        {http.StatusOK, `{"request_id":"1","data":{"path":"team/","type":"database","options":null}}`, false, true, nil},
		"another mount":     {http.StatusOK, `{"request_id":"1","data":{"path":"other/","type":"kv"}}`, false, false, nil},
		"nothing":           {http.StatusOK, `{"request_id":"1","data":{}}`, false, false, nil},
		"an empty answer":   {http.StatusOK, ``, false, false, ErrUnavailable},
		"another program":   {http.StatusOK, `{"status":"ok"}`, false, false, ErrUnavailable},
		"not to be asked":   {http.StatusForbidden, `{"errors":["preflight capability check returned 403"]}`, false, false, nil},
		"a token that went": {http.StatusForbidden, `{"errors":["permission denied","invalid token"]}`, false, false, ErrTokenGone},
		"away":              {http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`, false, false, ErrUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			probes := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != app {
					t.Errorf("%s was asked for", r.URL.Path)
				}
				probes++
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body) // the client is gone
			}))
			defer server.Close()
			endpoint := Endpoint{Address: server.URL}
			servers := NewClientPool(Config{})
			if _, known := servers.KnownKV(endpoint, "", "team/app"); known {
				t.Error("it is known before anything was asked")
			}
			session, err := servers.Client(t.Context(), endpoint, ClientOptions{MaxRetries: NoRetries}, Token{Secret: "token"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := session.IsKV(t.Context(), "/team/app?version=3")
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %t, %v", got, err)
			}
			if isKV, known := servers.KnownKV(endpoint, "", "team/app"); isKV != test.want || known != test.known {
				t.Errorf("afterwards: KV %t, known %t", isKV, known)
			}
			if _, known := servers.KnownKV(endpoint, "elsewhere", "team/app"); known {
				t.Error("it is known of another namespace")
			}
			if again, _ := session.IsKV(t.Context(), "team/app"); test.known && (again != test.want || probes != 1) {
				t.Errorf("again: %t after %d probes", again, probes)
			}
		})
	}
}

func TestNoPathIsNoKV(t *testing.T) {
	servers := NewClientPool(Config{})
	if isKV, known := servers.KnownKV(Endpoint{Address: "http://vault"}, "", "../sys"); isKV || known {
		t.Error("a path that leaves the API is known")
	}
	session := resumeAt(t, "http://127.0.0.1:1")
	if _, err := session.IsKV(t.Context(), "kv/../sys"); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
