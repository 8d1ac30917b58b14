package e2e

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

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

// The kubelet reads the Secret that nodePublishSecretRef names and passes it on;
// the driver needs no permission for it.
func TestVolumeUsesItsSecret(t *testing.T) {
	ids := strings.Fields(vault(t, `
		vault auth enable approle >/dev/null
		vault write auth/approle/role/app token_policies=internal-app >/dev/null
		vault read -field=role_id auth/approle/role/app/role-id; echo
		vault write -force -field=secret_id auth/approle/role/app/secret-id`))
	if len(ids) != 2 {
		t.Fatalf("Vault gives %d ids", len(ids))
	}
	apply(t, "approle.yaml")
	eventually(t, "the pod says that its Secret is missing", func() bool {
		return strings.Contains(kubectl(t, "describe", "pod", "approle"), `NodePublishSecretRef default/approle failed`)
	})
	kubectl(t, "create", "secret", "generic", "approle", "--from-literal=role-id="+ids[0], "--from-literal=secret-id=wrong")
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "secret", "approle"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	eventually(t, "the pod says that its secret id is wrong", func() bool {
		return strings.Contains(kubectl(t, "describe", "pod", "approle"), "check the role id and the secret id in the volume's Secret")
	})
	kubectl(t, "patch", "secret", "approle", "-p", `{"stringData":{"secret-id":"`+ids[1]+`"}}`)
	awaitReady(t, "default", "approle")
	if got := readFile(t, "default", "approle", "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
	if logs := driverLogs(t); strings.Contains(logs, ids[0]) || strings.Contains(logs, ids[1]) {
		t.Error("the log of the driver holds an id of the AppRole")
	}
}

// Whoever looks at a pod reads that its secrets are not refreshed, and why, and then
// that they are again. The files stay meanwhile.
func TestPodTellsOfItsRefresh(t *testing.T) {
	manifest, err := os.ReadFile("testdata/wizard.yaml")
	require.NoError(t, err)
	often := strings.Replace(strings.ReplaceAll(string(manifest), "wizard", "refreshed"), "        role: internal-app\n", "        role: internal-app\n        static-secret-render-interval: 10s\n", 1)
	if _, err := bed.KubectlWithInput(t.Context(), often, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "pod", "refreshed", "--timeout=60s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	awaitReady(t, "default", "refreshed")
	grant := func(capabilities string) string {
		return "vault policy write internal-app - <<EOF\npath \"internal/data/database/config\" { capabilities = [\"" + capabilities + "\"] }\nEOF"
	}
	t.Cleanup(func() {
		if _, err := bed.Vault(context.Background(), grant("read")); err != nil {
			t.Error(err)
		}
	})
	vault(t, grant("deny"))
	var description string
	eventually(t, "the pod tells that its secrets are not refreshed", func() bool {
		description = kubectl(t, "describe", "pod", "refreshed")
		return strings.Contains(description, "SecretsNotRefreshed")
	})
	contains(t, description, `volume "vault-secrets": the files stay as they are: `)
	contains(t, description, "permission denied; grant the path in a policy of the role")
	contains(t, kubectl(t, "exec", "--namespace=vaultmount", currentDriver(t), "--", "/vaultmount", "volumes"), "stale")
	if got := readFile(t, "default", "refreshed", "/vault/secrets/database-config.txt"); got != strings.ReplaceAll(connection, "wizard", "refreshed") {
		t.Errorf("the file holds %q", got)
	}
	vault(t, grant("read"))
	eventually(t, "the pod tells that its secrets are refreshed again", func() bool {
		description = kubectl(t, "describe", "pod", "refreshed")
		return strings.Contains(description, "SecretsRefreshed")
	})
	requireNoSecret(t, "description of the pod", description)
	t.Log(description[strings.Index(description, "\nEvents:")+1:])
}
