package e2e

import (
	"strings"
	"testing"
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
