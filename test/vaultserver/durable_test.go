package vaultserver

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/postgres"
)

func TestDurableServerKeepsWhatItStoresOverARestart(t *testing.T) {
	d := DurableForTest(t)
	client, err := d.Client()
	require.NoError(t, err)
	if _, err := client.Logical().WriteWithContext(t.Context(), "sys/mounts/kv", map[string]any{"type": "kv"}); err != nil {
		t.Fatal(err)
	}
	require.NoError(t, client.KVv1("kv").Put(t.Context(), "app", map[string]any{"password": "hunter2"}))
	require.NoError(t, d.Restart(t.Context()))
	secret, err := client.KVv1("kv").Get(t.Context(), "app")
	if err != nil || secret.Data["password"] != "hunter2" {
		t.Errorf("read %v, %v", secret, err)
	}
	require.NoError(t, d.Seal(t.Context()))
	client.SetMaxRetries(0)
	if _, err := client.KVv1("kv").Get(t.Context(), "app"); err == nil || !strings.Contains(err.Error(), "Vault is sealed") {
		t.Errorf("sealed: %v", err)
	}
	require.NoError(t, d.Unseal(t.Context()))
	requests, err := d.Audit()
	require.NoError(t, err)
	reads := slices.DeleteFunc(requests, func(r Request) bool { return r.Path != "kv/app" || r.Operation != "read" })
	if len(reads) != 1 || reads[0].Error != "" {
		t.Errorf("the audit log has %+v, want the one read that was not refused", reads)
	}
}

func TestDurableServerMakesRolesInPostgreSQL(t *testing.T) {
	database := postgres.ForTest(t)
	d := DurableForTest(t)
	client, err := d.Client()
	require.NoError(t, err)
	for _, step := range []struct {
		path string
		data map[string]any
	}{
		{"sys/mounts/database", map[string]any{"type": "database"}},
		{"database/config/app", map[string]any{
			"plugin_name": PostgresPlugin, "connection_url": database.DSN("{{username}}", "{{password}}"),
			"username": postgres.Admin, "password": postgres.AdminPassword, "allowed_roles": "*",
		}},
		{"database/roles/app", map[string]any{
			"db_name": "app", "default_ttl": "1h", "creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`,
		}},
	} {
		if _, err := client.Logical().WriteWithContext(t.Context(), step.path, step.data); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := client.Logical().ReadWithContext(t.Context(), "database/creds/app")
	require.NoError(t, err)
	username := secret.Data["username"].(string)
	if err := database.Ping(t.Context(), username, secret.Data["password"].(string)); err != nil {
		t.Error(err)
	}
	require.NoError(t, client.Sys().RevokeWithContext(t.Context(), secret.LeaseID))
	if err := database.Ping(t.Context(), username, secret.Data["password"].(string)); err == nil {
		t.Error("the role outlives its lease")
	}
}
