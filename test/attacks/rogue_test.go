package attacks

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// rogue is a Vault of the tenant's own, which answers as it likes.
type rogue struct {
	address string

	mutex sync.Mutex
	// handler answers in place of the usual answers where it returns true.
	handler func(http.ResponseWriter, *http.Request) bool
}

func startRogue(t *testing.T) *rogue {
	t.Helper()
	r := &rogue{}
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		server.CloseClientConnections() // those that hang
		server.Close()
	})
	r.address = server.URL
	return r
}

func (r *rogue) handle(handler func(http.ResponseWriter, *http.Request) bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.handler = handler
}

// handleBelow has the handler answer all requests whose paths have a prefix.
func (r *rogue) handleBelow(prefix string, handler http.HandlerFunc) {
	r.handle(func(w http.ResponseWriter, request *http.Request) bool {
		below := strings.HasPrefix(request.URL.Path, prefix)
		if below {
			handler(w, request)
		}
		return below
	})
}

// answerBelow answers them with a KV secret whose only value is some JSON.
func (r *rogue) answerBelow(prefix, value string) {
	r.handleBelow(prefix, func(w http.ResponseWriter, _ *http.Request) { answerSecret(w, value) })
}

// ServeHTTP implements http.Handler.
func (r *rogue) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mutex.Lock()
	handler := r.handler
	r.mutex.Unlock()
	if handler != nil && handler(w, request) {
		return
	}
	switch path := request.URL.Path; {
	case strings.HasSuffix(path, "/login"):
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "auth": map[string]any{
			"client_token": "hvs." + rand.Text(), "accessor": rand.Text(), "lease_duration": 3600, "renewable": true, "policies": []string{"default"},
		}})
	case strings.HasPrefix(path, "/v1/sys/internal/ui/mounts/"):
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "data": map[string]any{"path": "kv/", "type": "kv", "options": map[string]any{"version": "2"}}})
	case strings.HasPrefix(path, "/v1/auth/token/revoke-self"):
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(path, "/v1/auth/token/renew-self"):
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "auth": map[string]any{
			"client_token": request.Header.Get("X-Vault-Token"), "accessor": "a", "lease_duration": 3600, "renewable": true,
		}})
	default:
		answerSecret(w, `"value"`)
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the driver may have gone
}

// answerSecret answers with a KV secret whose only value is some JSON.
func answerSecret(w http.ResponseWriter, value string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"request_id":"r","data":{"data":{"value":%s},"metadata":{"version":1}}}`, value) // as above
}
