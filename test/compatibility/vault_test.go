package compatibility

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// vault is a real server that holds what the templates of testdata name.
type vault struct {
	server *vaultserver.Server
	root   *api.Client
}

const policyName = "compatibility"

func startVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{server: vaultserver.ForTest(t, nil)}
	client, err := v.server.Client()
	require.NoError(t, err)
	v.root = client
	v.write(t, "sys/policies/acl/"+policyName, map[string]any{"policy": `
		path "*" { capabilities = ["create", "read", "update", "list", "sudo"] }
		path "internal/data/forbidden" { capabilities = ["deny"] }`})
	v.write(t, "sys/mounts/internal", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	v.write(t, "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	// What templates write is apart from what others list.
	v.write(t, "sys/mounts/notes", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	v.write(t, "sys/mounts/oldnotes", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	v.storeSecrets(t)
	v.mountEngines(t)
	return v
}

func (v *vault) storeSecrets(t *testing.T) {
	t.Helper()
	v.store(t, "database/config", `{"username":"db-readonly-username","password":"db-secret-password"}`)
	v.store(t, "app", `{"string":"plain","number":42,"float":1.50,"big":12345678901234567890,"bool":true,"null":null,"empty":"",
		"list":["a","b",3],"map":{"k1":"v1","k2":2},"html":"<a href='x'>&","multiline":"line 1\nline 2\n\nline 4","unicode":"Zürich ☃",
		"json":"{\"user\":\"u\",\"ports\":[1,2]}","binary":"AAEC/w==","dash-key":"dash","dot.key":"dot"}`)
	v.store(t, "versions", `{"value":"one"}`)
	v.store(t, "versions", `{"value":"two"}`)
	v.write(t, "internal/metadata/versions", map[string]any{"custom_metadata": map[string]any{"owner": "team"}})
	for _, name := range []string{"services/default", "services/web", "services/below/deep"} {
		v.store(t, name, `{"url":"https://`+name+`"}`)
	}
	for _, name := range []string{"odd/with space", "odd/a+b", "odd/zürich", "odd/data", "data/app"} {
		v.store(t, name, `{"value":"`+name+`"}`)
	}
	v.write(t, "sys/mounts/team/kv", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	v.write(t, "team/kv/data/app", map[string]any{"data": map[string]any{"value": "of the team"}})
	v.store(t, "which", `{"path":"internal/data/database/config","n":"1"}`)
	for i := range 5 {
		v.store(t, fmt.Sprintf("chain/%d", i), fmt.Sprintf(`{"next":"internal/data/chain/%d"}`, i+1))
	}
	v.store(t, "chain/5", `{"value":"the end"}`)
	v.store(t, "written-before", `{"a":"1"}`)
	v.store(t, "forbidden", `{"x":"1"}`)
	v.store(t, "deleted", `{"x":"1"}`)
	if _, err := v.root.Logical().DeleteWithContext(t.Context(), "internal/data/deleted"); err != nil {
		t.Fatal(err)
	}
	v.store(t, "destroyed", `{"x":"1"}`)
	v.write(t, "internal/destroy/destroyed", map[string]any{"versions": []int{1}})
	v.write(t, "old/app", map[string]any{"name": "value", "html": "<&>", "number": 5})
}

func (v *vault) mountEngines(t *testing.T) {
	t.Helper()
	v.write(t, "sys/mounts/pki", map[string]any{"type": "pki", "config": map[string]any{"max_lease_ttl": "87600h"}})
	v.write(t, "pki/root/generate/internal", map[string]any{"common_name": "The CA", "key_type": "ec", "ttl": "8760h"})
	v.write(t, "pki/roles/web", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "key_type": "ec", "max_ttl": "72h"})
	v.write(t, "sys/mounts/transit", map[string]any{"type": "transit"})
	v.write(t, "transit/keys/app", nil)
	encrypted := v.write(t, "transit/encrypt/app", map[string]any{"plaintext": "aGVsbG8="})
	v.store(t, "ciphertext", fmt.Sprintf(`{"value":%q}`, encrypted.Data["ciphertext"]))
	v.write(t, "sys/auth/approle", map[string]any{"type": "approle"})
	for _, role := range []string{policyName, "web"} {
		v.write(t, "auth/approle/role/"+role, map[string]any{"token_policies": policyName})
	}
}

// store writes a secret of KV version 2, keeping the spelling of numbers.
func (v *vault) store(t *testing.T, name, data string) {
	t.Helper()
	v.write(t, "internal/data/"+name, map[string]any{"data": json.RawMessage(data)})
}

func (v *vault) write(t *testing.T, path string, data map[string]any) *api.Secret {
	t.Helper()
	secret, err := v.root.Logical().WriteWithContext(t.Context(), path, data)
	require.NoError(t, err)
	return secret
}

// token is what the agent has; vaultmount logs in for one with the same policy.
func (v *vault) token(t *testing.T) string {
	t.Helper()
	return v.write(t, "auth/token/create", map[string]any{"policies": []string{policyName}}).Auth.ClientToken
}

func (v *vault) appRole(t *testing.T) (roleID, secretID string) {
	t.Helper()
	role, err := v.root.Logical().ReadWithContext(t.Context(), "auth/approle/role/"+policyName+"/role-id")
	require.NoError(t, err)
	secret := v.write(t, "auth/approle/role/"+policyName+"/secret-id", nil)
	return role.Data["role_id"].(string), secret.Data["secret_id"].(string)
}
