package e2e

import (
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/canary"
)

// The driver runs at its highest verbosity in all these tests. What must be nowhere
// that people or Prometheus look: a service-account token (a JWT), a Vault token,
// the password.
func TestNothingShownHoldsASecret(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	apply(t, "typo.yaml")
	eventually(t, "the driver logs a failure as well", func() bool { return strings.Contains(driverLogs(t), "Call failed") })
	logs := driverLogs(t)
	contains(t, logs, `method="NodePublishVolume"`)
	contains(t, logs, `method="NodeGetCapabilities"`)
	requireNoSecret(t, "log of the driver", logs)
	requireNoSecret(t, "events", kubectl(t, "get", "events", "--all-namespaces", "-o", "yaml"))
	driver := strings.TrimPrefix(currentDriver(t), "pod/")
	metrics := kubectl(t, "get", "--raw", "/api/v1/namespaces/vaultmount/pods/"+driver+":8080/proxy/metrics")
	contains(t, metrics, "vaultmount_volumes ")
	requireNoSecret(t, "metrics of the driver", metrics)
	for _, output := range []string{"", "json"} {
		volumes := kubectl(t, "exec", "--namespace=vaultmount", driver, "--", "/vaultmount", "volumes", "--output="+output)
		contains(t, volumes, "wizard")
		requireNoSecret(t, "list of volumes", volumes)
	}
}

func requireNoSecret(t *testing.T, where, text string) {
	t.Helper()
	canary.Canaries{"the password": "db-secret-password"}.RequireNone(t, where, text)
}
