package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/cluster"
)

// Vault takes requests and answers none, the worst way to be down. Meanwhile both
// the driver and the kubelet start again, and then a container does: for it the
// kubelet must have the driver's word that the volume is there.
func TestContainersRestartWhileVaultIsDown(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	const identity = "stat -c '%d %i' /vault/secrets; readlink /vault/secrets/..data; stat -L -c %Y /vault/secrets/database-config.txt"
	before := kubectl(t, "exec", "wizard", "--", "sh", "-c", identity)

	signalVault(t, "STOP")
	t.Cleanup(func() { signalVault(t, "CONT") })
	kubectl(t, "rollout", "restart", "daemonset/vaultmount", "--namespace=vaultmount")
	kubectl(t, "rollout", "status", "daemonset/vaultmount", "--namespace=vaultmount", "--timeout=90s")
	if err := bed.RestartKubelet(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The container's own end: its program ends on SIGTERM. The kubelet that the
	// request goes through has just started.
	eventually(t, "the container ends", func() bool {
		_, err := bed.Kubectl(t.Context(), "exec", "wizard", "--", "kill", "-TERM", "1")
		return err == nil
	})
	eventually(t, "the container has started again", func() bool {
		state := kubectl(t, "get", "pod", "wizard", "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
		return !strings.HasPrefix(state, "0 ") && strings.HasSuffix(state, " true")
	})
	if got := readFile(t, "default", "wizard", "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
	if after := kubectl(t, "exec", "wizard", "--", "sh", "-c", identity); after != before {
		t.Errorf("the volume changed from %s to %s", before, after)
	}
}

// signalVault goes past Kubernetes, which would start an ended Vault again.
func signalVault(t *testing.T, signal string) {
	t.Helper()
	script := `found=1
		for p in /proc/[0-9]*; do
			if [ "$(cat $p/comm 2>/dev/null)" = vault ]; then kill -` + signal + ` ${p#/proc/}; found=0; fi
		done
		exit $found`
	if err := bed.Run(context.Background(), cluster.Command{Args: []string{"sh", "-c", script}, Dir: "/"}); err != nil {
		t.Fatal(err)
	}
}

// Somebody rotates a secret and asks for a refresh, so that the pod need not wait for the
// interval.
func TestPodIsRefreshedOnRequest(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	const put = "vault kv put internal/database/config username=db-readonly-username password="
	t.Cleanup(func() {
		// The tutorial shows the secret's version.
		if _, err := bed.Vault(context.Background(), "vault kv metadata delete internal/database/config && "+put+"db-secret-password"); err != nil {
			t.Error(err)
		}
	})
	vault(t, put+"rotated")
	contains(t, kubectl(t, "exec", "--namespace=vaultmount", currentDriver(t), "--", "/vaultmount", "refresh", "default/wizard"), "refreshed")
	const want = "postgresql://db-readonly-username:rotated@postgres:5432/wizard"
	if got := readFile(t, "default", "wizard", "/vault/secrets/database-config.txt"); got != want {
		t.Errorf("the file holds %q", got)
	}
}
