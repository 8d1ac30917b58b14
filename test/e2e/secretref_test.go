package e2e

import (
	"context"
	"strings"
	"testing"
)

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
