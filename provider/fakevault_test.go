package provider

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/utils/clock"
)

// fakeVault is a Vault whose time is the test's: a real one's cannot be moved,
// and the lifetimes of days are what is tested here. It knows logins, a static
// secret, credentials with leases, and their renewal and end.
type fakeVault struct {
	*httptest.Server
	clock clock.Clock

	mutex              sync.Mutex
	tokenTTL, tokenMax time.Duration
	leaseTTL, leaseMax time.Duration
	fixedTokens        bool          // the policy "default" is withheld
	down               bool          // no answer is of use
	ahead              time.Duration // Vault's own clock, of the node's
	static             string        // value of kv/static; empty for a missing secret
	tokens             map[string]*lifetime
	leases             map[string]*lifetime
	counts             map[string]int
	names              int
	// override answers in the place of Vault, where it reports so. It may take its time.
	override func(w http.ResponseWriter, r *http.Request) bool
}

// lifetime is a token or a lease.
type lifetime struct {
	expires, latest time.Time
	token           string
}

func startFakeVault(t *testing.T, clock clock.Clock) *fakeVault {
	t.Helper()
	v := &fakeVault{
		clock: clock, tokenTTL: time.Hour, tokenMax: 768 * time.Hour, leaseTTL: 20 * time.Second, leaseMax: time.Minute,
		static: "first", tokens: map[string]*lifetime{}, leases: map[string]*lifetime{}, counts: map[string]int{},
	}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

// change does something to the fake Vault between two requests.
func (v *fakeVault) change(do func()) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	do()
}

func (v *fakeVault) count(what string) int {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.counts[what]
}

// opens tells whether a database would let the holder of credentials in.
func (v *fakeVault) opens(credentials string) bool {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	lease := v.leases[credentials]
	return v.alive(lease) && v.alive(v.tokens[lease.token])
}

func (v *fakeVault) aliveTokens() int {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	alive := 0
	for _, token := range v.tokens {
		if v.alive(token) {
			alive++
		}
	}
	return alive
}

func (v *fakeVault) alive(l *lifetime) bool { return l != nil && v.clock.Now().Before(l.expires) }

func (v *fakeVault) now() time.Time { return v.clock.Now().Add(v.ahead) }

// newCertificate is one of Vault's pki, which puts the start into the past.
func newCertificate(from, to time.Time) string {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from.Add(-30 * time.Second), NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (v *fakeVault) newLifetime(ttl, longest time.Duration, token string) *lifetime {
	now := v.clock.Now()
	return &lifetime{expires: now.Add(min(ttl, longest)), latest: now.Add(longest), token: token}
}

// shift moves what has an end when the clock of the test is set.
func (v *fakeVault) shift(step time.Duration) {
	for _, all := range []map[string]*lifetime{v.tokens, v.leases} {
		for _, each := range all {
			each.expires, each.latest = each.expires.Add(step), each.latest.Add(step)
		}
	}
}

func (v *fakeVault) renewLifetime(l *lifetime, ttl time.Duration) {
	l.expires = v.clock.Now().Add(min(ttl, l.latest.Sub(v.clock.Now())))
}

func (v *fakeVault) seconds(l *lifetime) int {
	return int(l.expires.Sub(v.clock.Now()) / time.Second)
}

// ServeHTTP implements http.Handler.
func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mutex.Lock()
	override := v.override
	v.mutex.Unlock()
	if override != nil && override(w, r) {
		return
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	body := map[string]any{}
	_ = json.NewDecoder(r.Body).Decode(&body) // many requests have none
	if path == "sys/seal-status" {
		_ = json.NewEncoder(w).Encode(map[string]any{"sealed": false}) // also without storage
		return
	}
	if v.down {
		// Not 503, which opens the circuit: that has a clock of its own.
		respondErrors(w, http.StatusInternalServerError, "storage is away")
		return
	}
	v.counts[path]++
	token := r.Header.Get("X-Vault-Token")
	if path != "auth/jwt/login" && !v.alive(v.tokens[token]) {
		respondErrors(w, http.StatusForbidden, "permission denied", "invalid token")
		return
	}
	v.serve(w, path, token, body)
}

func (v *fakeVault) serve(w http.ResponseWriter, path, token string, body map[string]any) {
	if probed, ok := strings.CutPrefix(path, "sys/internal/ui/mounts/"); ok {
		engine, _, _ := strings.Cut(probed, "/")
		respond(w, map[string]any{"data": map[string]any{"path": engine + "/", "type": engine}})
		return
	}
	switch path {
	case "auth/jwt/login":
		if jwt := body["jwt"]; jwt == "old" {
			respondErrors(w, http.StatusForbidden, "token is expired")
			return
		}
		v.names++
		token = fmt.Sprintf("hvs.canary-%d", v.names)
		v.tokens[token] = v.newLifetime(v.tokenTTL, v.tokenMax, "")
		v.answerToken(w, token)
	case "auth/token/renew-self":
		if v.fixedTokens {
			respondErrors(w, http.StatusForbidden, "permission denied")
			return
		}
		v.renewLifetime(v.tokens[token], v.tokenTTL)
		v.answerToken(w, token)
	case "auth/token/revoke-self":
		delete(v.tokens, token)
		w.WriteHeader(http.StatusNoContent)
	case "sys/leases/renew":
		lease := v.leases[fmt.Sprint(body["lease_id"])]
		if !v.alive(lease) || !v.alive(v.tokens[lease.token]) {
			respondErrors(w, http.StatusBadRequest, "lease not found")
			return
		}
		v.renewLifetime(lease, v.leaseTTL)
		respond(w, map[string]any{"lease_id": body["lease_id"], "lease_duration": v.seconds(lease), "renewable": true})
	case "database/creds/app":
		v.names++
		id := fmt.Sprintf("lease-%d", v.names)
		v.leases[id] = v.newLifetime(v.leaseTTL, v.leaseMax, token)
		respond(w, map[string]any{"lease_id": id, "lease_duration": v.seconds(v.leases[id]), "renewable": true, "data": map[string]any{"username": id}})
	case "kv/static", "kv/of-a-pod":
		if v.static == "" {
			respondErrors(w, http.StatusNotFound)
			return
		}
		respond(w, map[string]any{"data": map[string]any{"value": v.static}, "lease_duration": 2764800})
	case "kv/leased": // no KV makes a lease
		respond(w, map[string]any{"data": map[string]any{"value": v.static}, "lease_id": "lease-of-kv", "lease_duration": 3600})
	case "database/static-creds/app":
		respond(w, map[string]any{"data": map[string]any{
			"username": "app", "last_vault_rotation": v.now().Format(time.RFC3339Nano), "rotation_period": 600, "ttl": 600,
		}})
	case "pki/issue/app":
		v.names++
		expiration := v.now().Add(10 * time.Minute)
		respond(w, map[string]any{"data": map[string]any{"certificate": newCertificate(v.now(), expiration), "expiration": expiration.Unix()}})
	case "transit/encrypt/app":
		v.names++
		respond(w, map[string]any{"data": map[string]any{"ciphertext": fmt.Sprintf("vault:v1:%d", v.names)}})
	default:
		respondErrors(w, http.StatusForbidden, "permission denied")
	}
}

func (v *fakeVault) answerToken(w http.ResponseWriter, token string) {
	respond(w, map[string]any{"auth": map[string]any{
		"client_token": token, "accessor": "a", "lease_duration": v.seconds(v.tokens[token]), "renewable": true,
	}})
}

func respond(w http.ResponseWriter, content map[string]any) {
	content["request_id"] = "1"
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(content) // the client is gone
}

func respondErrors(w http.ResponseWriter, status int, words ...string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": words}) // the client is gone
}
