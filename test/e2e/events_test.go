package e2e

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
	contains(t, kubectl(t, "exec", "--namespace=vaultmount", currentDriver(t), "--", "/vaultmount", "volumes"), "failing")
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
