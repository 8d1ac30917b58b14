package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// The driver runs at its highest verbosity in all these tests. What must not be
// in its log: a service-account token (a JWT), a Vault token, the password.
func TestLogsHoldNoSecret(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	apply(t, "typo.yaml")
	eventually(t, "the driver logs a failure as well", func() bool { return strings.Contains(driverLogs(t), "Call failed") })
	logs := driverLogs(t)
	contains(t, logs, `method="NodePublishVolume"`)
	contains(t, logs, `method="NodeGetCapabilities"`)
	requireNoSecret(t, "log of the driver", logs)
	requireNoSecret(t, "events", kubectl(t, "get", "events", "--all-namespaces", "-o", "yaml"))
}

func requireNoSecret(t *testing.T, where, text string) {
	t.Helper()
	for name, pattern := range map[string]string{
		"password":              `db-secret-password`,
		"service-account token": `eyJ[A-Za-z0-9_-]{10,}`,
		"Vault token":           `hv[sb]\.[A-Za-z0-9_-]{10,}`,
	} {
		if found := regexp.MustCompile(pattern).FindString(text); found != "" {
			t.Errorf("the %s holds a %s", where, name)
		}
	}
}
