package component

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

// A static role keeps its name, and Vault changes its password at times of its own,
// which it tells. The file follows each change by itself.
func TestStaticRoleFollowsItsRotation(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	database := startDatabase(t, fixture, leaseTTL, leaseMaxTTL)
	execute(t, database, `CREATE ROLE app LOGIN`)
	fixture.Write(t, "database/static-roles/fixed", map[string]any{"db_name": "app", "username": "app", "rotation_period": "5s"})
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	request := n.request(t, "app", map[string]string{
		"role": "database", "template/credentials": strings.ReplaceAll(databaseTemplate, "database/creds/app", "database/static-creds/fixed"),
	})
	n.mustPublish(t, request)
	used := map[string]bool{}
	rig.Eventually(t, "two passwords of the file have opened a session", func() bool {
		user, secret, _ := strings.Cut(mustRead(t, rig.VolumeFile(request, "credentials")), " ")
		if !used[secret] && database.Ping(t.Context(), user, secret) == nil {
			used[secret] = true
		}
		return len(used) >= 2
	})
	n.logs.requireNone(t, slices.Collect(maps.Keys(used))...)
}
