package e2e

import (
	"slices"
	"strings"
	"testing"
)

// Somebody removes the link by which the kubelet knows the driver. The kubelet takes the
// driver off the node. The liveness probe fails, so the kubelet restarts the driver, which
// registers again, and pods with volumes start again.
func TestRemovedRegistrationRestartsTheDriver(t *testing.T) {
	registered := func() bool {
		return strings.Contains(kubectl(t, "get", "csinodes", "-o", "jsonpath={.items[*].spec.drivers[*].name}"), "csi.vaultmount.dev")
	}
	before := registrations(t)
	if len(before) != 1 || !registered() {
		t.Fatalf("the driver is not there from the start: %q", before)
	}
	onNode(t, "rm "+before[0])
	eventually(t, "the driver has registered by a new link", func() bool {
		now := registrations(t)
		return len(now) == 1 && !slices.Equal(now, before)
	})
	eventually(t, "the kubelet has registered it", registered)
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	if got := readFile(t, "default", "wizard", "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
}

// registrations are what the driver has in the kubelet's plugins_registry.
func registrations(t *testing.T) []string {
	t.Helper()
	return strings.Fields(onNode(t, "find /var/lib/kubelet/plugins_registry -name 'csi.vaultmount.dev-reg-*'"))
}
