package attacks

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// queueAttacks are about places that all tenants wait for.
func queueAttacks() []attack {
	return []attack{
		hangingEngine(),
		{name: "pods have templates of a second each", requests: slowTemplateRequests, hangs: awaitTemplates},
		{name: "pods have templates of a second each, and the victim's are programs", requests: slowTemplateRequests, hangs: awaitTemplates, template: victimProgram()},
	}
}

// hangingEngine has 40 reads wait for a database that takes connections and says
// nothing: more than a driver has in flight.
func hangingEngine() attack {
	return attack{
		name: "reads of a database hang",
		requests: func(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
			s.Vault.Write(t, "sys/mounts/database", map[string]any{"type": "database"})
			s.Vault.Write(t, "database/config/tenant", map[string]any{
				"plugin_name": vaultserver.PostgresPlugin, "connection_url": "postgresql://{{username}}:{{password}}@" + silentAddress(t) + "/x?sslmode=disable",
				"username": "u", "password": "p", "allowed_roles": "*", "verify_connection": false,
			})
			var text strings.Builder
			for i := range 8 {
				s.Vault.Write(t, fmt.Sprintf("database/roles/tenant-%d", i), map[string]any{
					"db_name": "tenant", "creation_statements": `CREATE ROLE "{{name}}"`, "default_ttl": "1h",
				})
				fmt.Fprintf(&text, `{{ with secret "database/creds/tenant-%d" }}x{{ end }}`, i)
			}
			return s.tenantRequests(t, 5, func(int) map[string]string {
				return map[string]string{"template/a": text.String(), "client-timeout": "100s"}
			})
		},
		hangs: func(t *testing.T, s *stage) {
			rig.Eventually(t, "reads hang", func() bool { return s.Vault.InFlight(t) >= 8 })
		},
	}
}

// silentAddress takes connections and says nothing.
func silentAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var connections []net.Conn
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connections = append(connections, connection)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		accepting.Wait()
		for _, connection := range connections {
			connection.Close()
		}
	})
	return listener.Addr().String()
}

// slowTemplateRequests run for a second and fail, so that they never become known as
// slow: each has another comment.
func slowTemplateRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	return s.tenantRequests(t, scaled(6, 60), func(pod int) map[string]string {
		return map[string]string{"template/a": fmt.Sprintf(`{{/* %d */}}{{ range loop 60000 }}{{ $x := sprig_until 1000 }}{{ end }}{{ sprig_fail "x" }}`, pod)}
	})
}

// awaitTemplates waits until one of them has run for 200 ms.
func awaitTemplates(t *testing.T, s *stage) {
	t.Helper()
	rig.Eventually(t, "a template runs", func() bool {
		for _, ticks := range s.workers(t) {
			if ticks > 20 {
				return true
			}
		}
		return false
	})
}
