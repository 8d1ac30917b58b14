package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/cluster"
)

// A node that is made with the start-up taint gets pods when its driver is there:
// the driver takes the taint away, and no other.
func TestStartupTaint(t *testing.T) {
	h := newHelm(t)
	removeDriver(t)
	const mine, other = "csi.vaultmount.dev/agent-not-ready", "example.com/other"
	taints := func() string {
		return kubectl(t, "get", "node", cluster.Node, "--output=jsonpath={.spec.taints[*].key}")
	}
	kubectl(t, "taint", "node", cluster.Node, mine+"=:NoSchedule", other+"=:PreferNoSchedule")
	t.Cleanup(func() {
		// kubectl fails to remove a taint that is not there.
		if _, err := bed.Kubectl(context.Background(), "patch", "node", cluster.Node, "--type=merge", `--patch={"spec":{"taints":null}}`); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	h.run(t, "install", "vaultmount", chartDirectory, "--create-namespace", "--set=startupTaint.enabled=true,policy.enabled=false", "--wait", "--timeout=90s")
	t.Cleanup(func() { h.uninstall(t) })
	eventually(t, "the driver removes the taint", func() bool { return !strings.Contains(taints(), mine) })
	if got := taints(); got != other {
		t.Errorf("the node has the taints %q, want %q", got, other)
	}
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
}
