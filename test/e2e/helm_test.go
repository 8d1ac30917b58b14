package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/testbed"
)

// The chart in place of the manifests, from an install with nothing but Vault's
// address to an uninstall that leaves nothing. In order: each step starts from what
// the one before has left.
func TestHelm(t *testing.T) {
	h := newHelm(t)
	removeDriver(t)
	before := clusterObjects(t)
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "namespace", "vaultmount", "--ignore-not-found", "--timeout=90s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	h.run(t, "install", "vaultmount", chartDirectory, "--create-namespace", "--wait", "--timeout=90s")
	t.Cleanup(func() { h.uninstall(t) })

	t.Run("tutorial", func(t *testing.T) {
		eventually(t, "the policy and its guard act", func() bool {
			return bed.ProbeAdmission(t.Context()) == testbed.Admission{Translates: true, Guards: true}
		})
		playTutorial(t, byAdmission{})
	})
	t.Run("upgrade", h.testUpgrade)
	t.Run("test", h.testTest)
	t.Run("webhook", h.testWebhook)

	h.uninstall(t)
	eventually(t, "the cluster forgets the driver", func() bool {
		return !strings.Contains(kubectl(t, "get", "csinodes", "--output=yaml"), "csi.vaultmount.dev")
	})
	// The notes say that the namespace stays.
	kubectl(t, "delete", "namespace", "vaultmount", "--timeout=90s")
	var left []string
	eventually(t, "nothing is left in the cluster", func() bool {
		left = difference(clusterObjects(t), before)
		return len(left) == 0
	})
	if lost := difference(before, clusterObjects(t)); len(lost) > 0 {
		t.Errorf("the cluster has lost %q", lost)
	}
	// And that each node has an empty directory.
	const look = "find /var/lib/kubelet/plugins/csi.vaultmount.dev /var/lib/kubelet/plugins_registry -mindepth 1; grep /var/lib/kubelet/plugins/ /proc/self/mountinfo || :"
	if got := onNode(t, look); got != "" {
		t.Errorf("the node has\n%s", got)
	}
}

// testUpgrade goes to another image while pods come and go.
func (h helm) testUpgrade(t *testing.T) {
	nextImage(t, "next")
	first := currentDriver(t)
	requireUpgrade(t, func() {
		if _, err := h.try(t.Context(), "upgrade", "vaultmount", chartDirectory, "--set=image.tag=next", "--wait", "--timeout=90s"); err != nil {
			t.Error(err)
		}
	})
	if now := currentDriver(t); now == first {
		t.Error("the upgrade has replaced nothing")
	}
	if image := kubectl(t, "get", currentDriver(t), "--namespace=vaultmount", "-o", "jsonpath={.spec.containers[0].image}"); !strings.HasSuffix(image, ":next") {
		t.Errorf("the driver is of image %s", image)
	}
}

// testTest plays helm test, once with a role that may read the secret and once with
// one that may not.
func (h helm) testTest(t *testing.T) {
	vault(t, "vault write auth/kubernetes/role/chart-test bound_service_account_names=default bound_service_account_namespaces=vaultmount policies=internal-app ttl=1h >/dev/null")
	t.Cleanup(func() {
		if _, err := bed.Vault(context.Background(), "vault delete auth/kubernetes/role/chart-test"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	h.run(t, "upgrade", "vaultmount", chartDirectory, "--set=test.role=chart-test,test.secret=internal/data/database/config", "--wait", "--timeout=90s")
	printed := h.run(t, "test", "vaultmount", "--timeout=90s")
	if strings.Count(printed, "Phase:          Succeeded") != 2 {
		t.Errorf("the tests say\n%s", printed)
	}
	h.run(t, "upgrade", "vaultmount", chartDirectory, "--set=test.role=internal-app,test.secret=internal/data/database/config", "--wait", "--timeout=90s")
	if printed, err := h.try(t.Context(), "test", "vaultmount", "--timeout=10s"); err == nil {
		t.Errorf("with a role for others the tests say\n%s", printed)
	}
	contains(t, kubectl(t, "describe", "pod", "vaultmount-test-volume", "--namespace=vaultmount"), "service account name not authorized")
	kubectl(t, "delete", "pod", "vaultmount-test-volume", "--namespace=vaultmount", "--timeout=60s")
}

// testWebhook has the webhook in the policy's place. What it has written into its
// Secret and its configuration, upgrades leave alone: neither server-side apply nor
// Helm's own merge, which Helm 3 knows alone, touches what the chart does not name.
func (h helm) testWebhook(t *testing.T) {
	const enabled = "--set=webhook.enabled=true,webhook.timeoutSeconds="
	h.run(t, "upgrade", "vaultmount", chartDirectory, enabled+"30", "--wait", "--timeout=90s")
	awaitWebhook(t)
	secret := func() string {
		return kubectl(t, "get", "secret", webhookNamespace, "vaultmount-webhook-tls", "-o", "jsonpath={.data}")
	}
	trust, certificate := webhookTrust(t), secret()
	if trust[0] == "" || certificate == "" {
		t.Fatalf("the webhook has written neither: %q, %q", trust, certificate)
	}
	for i, how := range []string{"--server-side=true", "--server-side=false"} {
		timeout := fmt.Sprint(28 + i)
		h.run(t, "upgrade", "vaultmount", chartDirectory, enabled+timeout, how)
		if got := kubectl(t, "get", "mutatingwebhookconfiguration", "vault-agent-annotations", "-o", "jsonpath={.webhooks[0].timeoutSeconds}"); got != timeout {
			t.Errorf("%s: the upgrade has changed nothing: the timeout is %s", how, got)
		}
		if now := webhookTrust(t); !slices.Equal(now, trust) {
			t.Errorf("%s: the upgrade has taken the trust away: %q", how, now)
		}
		if now := secret(); now != certificate {
			t.Errorf("%s: the upgrade has changed the certificate", how)
		}
	}
}

const chartDirectory = "deploy/chart"

// helm runs Helm for the test cluster.
type helm struct{ program, home string }

func newHelm(t *testing.T) helm {
	t.Helper()
	program, err := parts.Helm(t.Context(), t.Output())
	require.NoError(t, err)
	return helm{program: program, home: t.TempDir()}
}

// try adds what an install or an upgrade must have: Vault's address, and the most
// that the programs can be made to say, as the tests search it for secrets.
func (h helm) try(ctx context.Context, arguments ...string) (string, error) {
	arguments = append(arguments, "--namespace=vaultmount")
	if arguments[0] == "install" || arguments[0] == "upgrade" {
		arguments = append(arguments, "--set=vault.address=http://"+cluster.NodeIP+":8200,driver.verbosity=10,webhook.verbosity=10")
	}
	command := exec.CommandContext(ctx, h.program, arguments...)
	checkout, err := parts.Checkout()
	if err != nil {
		return "", err
	}
	command.Dir = checkout
	command.Env = slices.Concat(os.Environ(), bed.Environment(), []string{"HELM_CONFIG_HOME=" + h.home, "HELM_CACHE_HOME=" + h.home, "HELM_DATA_HOME=" + h.home})
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(arguments, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (h helm) run(t *testing.T, arguments ...string) string {
	t.Helper()
	printed, err := h.try(t.Context(), arguments...)
	if err != nil {
		t.Fatalf("%v\n%s", err, kubectl(t, "describe", "pods", "--namespace=vaultmount"))
	}
	return printed
}

// uninstall waits for the pods itself: helm's own --wait gives up on whatever it
// hears of only after all else is gone, and says that it "still exists".
func (h helm) uninstall(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	if _, err := h.try(ctx, "uninstall", "vaultmount", "--ignore-not-found"); err != nil {
		t.Errorf("uninstall: %v", err)
	}
	if _, err := bed.Kubectl(ctx, "wait", "--for=delete", "pods", "--all", "--namespace=vaultmount", "--timeout=180s"); err != nil {
		t.Errorf("uninstall: %v", err)
	}
}

// removeDriver takes the driver of the testbed out of the cluster until the test
// ends.
func removeDriver(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.Background()
		for _, arguments := range [][]string{
			{"apply", "-k", testbed.Manifest("driver")},
			{"rollout", "status", "daemonset/vaultmount", "--namespace=vaultmount", "--timeout=90s"},
		} {
			if _, err := bed.Kubectl(ctx, arguments...); err != nil {
				t.Errorf("put the driver back: %v", err)
			}
		}
	})
	kubectl(t, "delete", "-k", testbed.Manifest("driver"), "--timeout=180s")
}

// clusterObjects lists all objects, but for those that come and go by themselves.
func clusterObjects(t *testing.T) []string {
	t.Helper()
	var kinds []string
	for _, kind := range strings.Fields(kubectl(t, "api-resources", "--verbs=list", "--output=name")) {
		passing := []string{"componentstatuses", "endpoints", "endpointslices.discovery.k8s.io", "events", "events.events.k8s.io", "leases.coordination.k8s.io"}
		if !slices.Contains(passing, kind) {
			kinds = append(kinds, kind)
		}
	}
	list := kubectl(t, "get", strings.Join(kinds, ","), "--all-namespaces", `--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
	return strings.Split(strings.TrimSpace(list), "\n")
}

// difference is what the one has and the other has not.
func difference(one, other []string) []string {
	return slices.DeleteFunc(slices.Clone(one), func(each string) bool { return slices.Contains(other, each) })
}

// onNode runs a script in the node's namespaces.
func onNode(t *testing.T, script string) string {
	t.Helper()
	output, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	defer output.Close()
	if err := bed.Run(t.Context(), cluster.Command{Args: []string{"sh", "-c", script}, Dir: "/", Stdout: output}); err != nil {
		t.Fatal(err)
	}
	printed, err := os.ReadFile(output.Name())
	require.NoError(t, err)
	return string(printed)
}
