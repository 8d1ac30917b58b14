package rig

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// What every Vault of a test holds.
const (
	// Role is the role of auth/jwt that pods log in with, and the service account
	// that is bound to it.
	Role = "internal-app"
	// APIServerAudience is that of the tokens that are for no other.
	APIServerAudience = "https://kubernetes.default.svc.cluster.local"
	// ConfigPath is a KV version 2 secret with a username and a password.
	ConfigPath = "internal/data/database/config"
	// Username and Password are what it holds at first.
	Username = "db-readonly-username"
	Password = "db-secret-password"
)

// Vault is a Vault with secrets, and an issuer of service-account tokens that it
// trusts. Without a Server it is the issuer alone.
type Vault struct {
	Server *vaultserver.Server
	Root   *api.Client
	signer jose.Signer
}

// StartVault starts a Vault in memory.
func StartVault(t testing.TB) *Vault {
	t.Helper()
	return SetUpVault(t, vaultserver.ForTest(t, nil))
}

// NewIssuer returns an issuer of tokens that no Vault knows.
func NewIssuer(t testing.TB) *Vault {
	t.Helper()
	return &Vault{signer: newSigner(t, NewKey(t))}
}

// SetUpVault gives a server its secrets, policies and roles.
func SetUpVault(t testing.TB, server *vaultserver.Server) *Vault {
	t.Helper()
	key := NewKey(t)
	v := &Vault{Server: server, signer: newSigner(t, key)}
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	v.Root = client
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	v.Write(t, "sys/mounts/internal", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	v.Write(t, "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	v.SetPassword(t, Password)
	v.Write(t, "old/app", map[string]any{"name": "value", "html": "<&>"})
	v.Write(t, "sys/policies/acl/internal-app", map[string]any{"policy": `
		path "internal/data/database/*" { capabilities = ["read"] }
		path "internal/metadata/database" { capabilities = ["list"] }
		path "old/*" { capabilities = ["read"] }`})
	v.Write(t, "sys/auth/jwt", map[string]any{"type": "jwt"})
	v.Write(t, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
	})
	v.SetTokenTTL(t, time.Hour)
	return v
}

// SetTokenTTL is for the tokens of later logins.
func (v *Vault) SetTokenTTL(t testing.TB, ttl time.Duration) {
	t.Helper()
	v.Write(t, "auth/jwt/role/"+Role, map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_subject": "system:serviceaccount:default:" + Role, "token_policies": []string{"internal-app"}, "token_ttl": ttl.String(),
	})
}

// SetPassword rotates the secret at ConfigPath.
func (v *Vault) SetPassword(t testing.TB, password string) {
	t.Helper()
	v.Write(t, ConfigPath, map[string]any{"data": map[string]any{"username": Username, "password": password}})
}

// Write writes with the root token.
func (v *Vault) Write(t testing.TB, path string, data map[string]any) {
	t.Helper()
	if _, err := v.Root.Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// NewKey makes a key for whatever a test signs.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB, key *ecdsa.PrivateKey) jose.Signer {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// Tokens is TokensFor with a pod in the namespace "default".
func (v *Vault) Tokens(t testing.TB, pod, serviceAccount string) string {
	t.Helper()
	return v.TokensFor(t, Pod{Namespace: "default", Name: pod, ServiceAccount: serviceAccount})
}

// TokensFor is what the kubelet sends under serviceAccount.tokens for a pod.
func (v *Vault) TokensFor(t testing.TB, pod Pod) string {
	t.Helper()
	expiry := time.Now().Add(time.Hour)
	audiences := map[string]map[string]string{}
	for _, audience := range []string{"", "vault"} {
		token, err := jwt.Signed(v.signer).Claims(jwt.Claims{
			Subject:  "system:serviceaccount:" + pod.Namespace + ":" + pod.ServiceAccount,
			Expiry:   jwt.NewNumericDate(expiry),
			IssuedAt: jwt.NewNumericDate(time.Now()),
		}).Claims(map[string]any{"aud": []string{cmp.Or(audience, APIServerAudience)}, "kubernetes.io": map[string]any{
			"namespace":      pod.Namespace,
			"pod":            map[string]string{"name": pod.Name, "uid": pod.uid()},
			"serviceaccount": map[string]string{"name": pod.ServiceAccount, "uid": pod.ServiceAccount + "-uid"},
		}}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		audiences[audience] = map[string]string{"token": token, "expirationTimestamp": expiry.Format(time.RFC3339)}
	}
	text, err := json.Marshal(audiences)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
