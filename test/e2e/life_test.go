package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/cluster"
)

// The kubelet publishes again every few seconds here; the containers keep the
// mount that they started with.
func TestRepublishLeavesTheVolumeAlone(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	identity := func() string {
		return kubectl(t, "exec", "wizard", "--", "sh", "-c", "stat -c '%d %i' /vault/secrets; readlink /vault/secrets/..data")
	}
	before := identity()
	republishes := func() int { return strings.Count(driverLogs(t), `pod="default/wizard" code="OK"`) }
	start := republishes()
	eventually(t, "the kubelet publishes twice more", func() bool { return republishes() >= start+2 })
	if after := identity(); after != before {
		t.Errorf("the volume changed from %s to %s", before, after)
	}
}

func TestDeletedPodLeavesNothing(t *testing.T) {
	tokens := func() string { return vault(t, "vault list auth/token/accessors | wc -l") }
	eventually(t, "the pods of other tests are gone", func() bool {
		return strings.TrimSpace(kubectl(t, "get", "pods", "--selector=app", "--no-headers", "-o", "name", "--field-selector=metadata.name!=vault-0")) == ""
	})
	mounts := func() int { return strings.Count(nodeMounts(t), " - tmpfs csi.vaultmount.dev ") }
	before, mountsBefore := tokens(), mounts()
	kubectl(t, "apply", "-f", "test/e2e/testdata/wizard.yaml")
	awaitReady(t, "default", "wizard")
	if mounts() <= mountsBefore {
		t.Error("the node shows no mount of the volume, so its absence proves nothing")
	}
	kubectl(t, "delete", "pod", "wizard", "--timeout=60s")
	if got := mounts(); got != mountsBefore {
		t.Errorf("the node has %d mounts of volumes, want %d", got, mountsBefore)
	}
	eventually(t, "the Vault token is revoked", func() bool { return tokens() == before })
}

// nodeMounts is the mount table of the node, which the kubelet works in.
func nodeMounts(t *testing.T) string {
	t.Helper()
	return onNode(t, "cat /proc/1/mountinfo")
}

// A driver that restarts finds the volumes of the one before: pods keep running
// and can be deleted.
func TestDriverRestart(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	kubectl(t, "rollout", "restart", "daemonset/vaultmount", "--namespace=vaultmount")
	kubectl(t, "rollout", "status", "daemonset/vaultmount", "--namespace=vaultmount", "--timeout=90s")
	if got := readFile(t, "default", "wizard", "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
	apply(t, "group.yaml")
	awaitReady(t, "default", "group")
}

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
