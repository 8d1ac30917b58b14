package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/testbed"
)

const (
	webhookName      = "vault-annotations.vaultmount.dev"
	webhookNamespace = "--namespace=vaultmount"
)

// The tests share one webhook, as deploy/webhook installs it, and no other test
// has one.
func TestWebhook(t *testing.T) {
	installWebhook(t)
	t.Run("tutorial", func(t *testing.T) { playTutorial(t, byAdmission{}) })
	t.Run("annotated", playAnnotated)
	t.Run("refusals", testWebhookRefuses)
	t.Run("workloads", testWebhookWarnsOfWorkloads)
	t.Run("certificate", testWebhookCertificate)
	t.Run("restricted itself", testWebhookIsRestricted)
	t.Run("secrecy", testWebhookShowsNoSecret)
	t.Run("outage", testWebhookOutage)
}

func installWebhook(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.Background()
		for _, arguments := range [][]string{
			{"delete", "-k", testbed.Manifest("webhook"), "--ignore-not-found", "--cascade=foreground", "--timeout=90s"},
			{"delete", "secret", "vaultmount-webhook-tls", webhookNamespace, "--ignore-not-found"},
		} {
			if _, err := bed.Kubectl(ctx, arguments...); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	})
	kubectl(t, "apply", "-k", testbed.Manifest("webhook"))
	awaitWebhook(t)
}

// awaitWebhook waits until the API server gets an answer: it learns of pods and of
// its trust in them at its own time.
func awaitWebhook(t *testing.T) {
	t.Helper()
	kubectl(t, "rollout", "status", "deployment/vaultmount-webhook", webhookNamespace, "--timeout=90s")
	var last error
	defer func() {
		if t.Failed() {
			t.Logf("%v\n%s", last, kubectl(t, "logs", "deployment/vaultmount-webhook", webhookNamespace, "--all-pods", "--tail=20"))
		}
	}()
	eventually(t, "the API server gets an answer", func() bool {
		_, last = dryRun(t, "tutorial/pod-payroll.yaml", "default")
		return last == nil
	})
}

// dryRun asks what would become of a file of testdata, and returns all that
// kubectl says.
func dryRun(t *testing.T, file, namespace string, arguments ...string) (string, error) {
	t.Helper()
	return bed.Kubectl(t.Context(), append([]string{"apply", "--dry-run=server", "--namespace=" + namespace, "-f", "test/e2e/testdata/" + file}, arguments...)...)
}

// kubectlWarnings returns what kubectl says on standard error when all is well.
func kubectlWarnings(t *testing.T, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), bed.KubectlPath(), arguments...)
	command.Dir = "../.."
	command.Env = append(os.Environ(), bed.Environment()...)
	var output bytes.Buffer
	command.Stderr = &output
	if err := command.Run(); err != nil {
		t.Fatalf("%v: %s", err, output.String())
	}
	return output.String()
}

// requireDenied applies a pod with other annotations than the tutorial's.
func requireDenied(t *testing.T, namespace string, change func(string) string, want string) {
	t.Helper()
	manifest, err := os.ReadFile("testdata/tutorial/pod-payroll.yaml")
	require.NoError(t, err)
	changed := change(string(manifest))
	_, err = bed.KubectlWithInput(t.Context(), changed, "create", "--dry-run=server", "--namespace="+namespace, "-f", "-")
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func testWebhookRefuses(t *testing.T) {
	denied := `error when creating "STDIN": admission webhook "` + webhookName + `" denied the request: `
	annotate := func(line string) func(string) string {
		return func(manifest string) string {
			return strings.Replace(manifest, "  annotations:\n", "  annotations:\n    "+line+"\n", 1)
		}
	}
	requireDenied(t, "default", annotate(`vault.hashicorp.com/agent-inject-command-database-config.txt: "kill -HUP 1"`),
		denied+"vault.hashicorp.com/agent-inject-command-database-config.txt: vaultmount has no agent to run commands; remove it, and let the application watch the file")
	requireDenied(t, "default", func(manifest string) string {
		return strings.Replace(manifest, "agent-inject: 'true'", "agent-inject: 'yes'", 1)
	}, denied+`vault.hashicorp.com/agent-inject: "yes" is not a boolean; write "true" or "false"`)
	requireDenied(t, "kube-system", func(manifest string) string {
		return strings.Replace(manifest, "serviceAccountName: internal-app", "serviceAccountName: default", 1)
	}, denied+"vault.hashicorp.com/agent-inject: cannot inject into system namespaces: kube-system")
	requireDenied(t, "default", annotate(`vault.hashicorp.com/agent-cache-enable: "true"`+"\n    "+`vault.hashicorp.com/agent-enable-quit: "true"`),
		denied+"2 annotations are not supported:\n- vault.hashicorp.com/agent-cache-enable: ")
}

func testWebhookWarnsOfWorkloads(t *testing.T) {
	const command = "vault.hashicorp.com/agent-inject-command-url: vaultmount has no agent to run commands; remove it, and let the application watch the file"
	const image = "vault.hashicorp.com/agent-image: has no effect: there is no agent container in the pod; remove it"
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "-f", "test/e2e/testdata/annotated/refused.yaml", "-f", "test/e2e/testdata/annotated/warned.yaml", "--cascade=foreground", "--timeout=60s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	output := kubectlWarnings(t, "apply", "-f", "test/e2e/testdata/annotated/refused.yaml")
	if want := "Warning: its pods will be rejected: " + command + "\nWarning: " + image + "\n"; output != want {
		t.Errorf("kubectl says %q, want %q", output, want)
	}
	eventually(t, "the ReplicaSet's events name the annotation", func() bool {
		return strings.Contains(kubectl(t, "get", "events", "--field-selector=reason=FailedCreate"), `admission webhook "`+webhookName+`" denied the request: `+command)
	})
	output = kubectlWarnings(t, "apply", "-f", "test/e2e/testdata/annotated/warned.yaml")
	if want := "Warning: " + image + "\n"; output != want {
		t.Errorf("kubectl says %q, want %q", output, want)
	}
	kubectl(t, "create", "job", "warned", "--from=cronjob/warned")
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "job", "warned", "--cascade=foreground", "--timeout=60s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	kubectl(t, "wait", "--for=condition=Complete", "job/warned", "--timeout=90s")
	repeated := kubectl(t, "get", "pod", "--selector=job-name=warned", "-o", `jsonpath={.items[0].metadata.annotations.vaultmount\.dev/warnings}`)
	if repeated != image {
		t.Errorf("the pod repeats %q", repeated)
	}
}

// An outage touches those that ask, and says what is wrong.
func testWebhookOutage(t *testing.T) {
	kubectl(t, "scale", "deployment/vaultmount-webhook", webhookNamespace, "--replicas=0")
	kubectl(t, "wait", "--for=delete", "pod", "--selector=app.kubernetes.io/name=vaultmount-webhook", webhookNamespace, "--timeout=90s")

	apply(t, "annotated/unannotated.yaml")
	awaitReady(t, "default", "unannotated")
	_, err := dryRun(t, "tutorial/pod-payroll.yaml", "default")
	if err == nil || !strings.Contains(err.Error(), `failed calling webhook "`+webhookName+`": failed to call webhook: Post "https://vaultmount-webhook.vaultmount.svc:443/mutate?timeout=30s": no endpoints available for service "vaultmount-webhook"`) {
		t.Errorf("an annotated pod: %v", err)
	}
	if output := kubectlWarnings(t, "apply", "--dry-run=server", "-f", "test/e2e/testdata/annotated/refused.yaml"); output != "" {
		t.Errorf("a workload: kubectl says %q", output)
	}
	t.Run("translated before", func(t *testing.T) {
		t.Cleanup(func() { removeTutorial(t) })
		newByCommand(t).apply(t, "default", "pod-payroll.yaml")
		tutorial{}.requireConnection(t, "default", "payroll")
	})

	kubectl(t, "scale", "deployment/vaultmount-webhook", webhookNamespace, "--replicas=2")
	awaitWebhook(t)
}

// The webhook's own pods would start in a restricted namespace.
func testWebhookIsRestricted(t *testing.T) {
	kubectl(t, "create", "namespace", "strict")
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "namespace", "strict", "--timeout=60s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	kubectl(t, "label", "namespace", "strict", "pod-security.kubernetes.io/warn=restricted")
	manifest := kubectl(t, "get", "deployment", "vaultmount-webhook", webhookNamespace, "-o", "json")
	file := t.TempDir() + "/deployment.json"
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(manifest, `"namespace": "vaultmount"`, `"namespace": "strict"`)), 0o600))
	if output := kubectlWarnings(t, "create", "--dry-run=server", "-f", file); output != "" {
		t.Errorf("kubectl says %q", output)
	}
	if output := kubectlWarnings(t, "create", "deployment", "lax", "--image=x", "--namespace=strict", "--dry-run=server"); !strings.Contains(output, "would violate PodSecurity") {
		t.Errorf("the namespace warns of nothing: %q", output)
	}
}

// The webhook has seen templates and keys in the tests before, at its highest
// verbosity, and counts what it has seen.
func testWebhookShowsNoSecret(t *testing.T) {
	logs := kubectl(t, "logs", "deployment/vaultmount-webhook", webhookNamespace, "--all-pods", "--tail=-1")
	contains(t, logs, `Request reviewed`)
	requireNoSecret(t, "log of the webhook", logs)
	// The last is PEM in base64: the Secret of the certificate.
	for _, text := range []string{"postgresql", "{{", "PRIVATE KEY", "LS0tLS1CRUdJTi"} {
		if strings.Contains(logs, text) {
			t.Errorf("the log of the webhook holds %q", text)
		}
	}
	for pod := range strings.FieldsSeq(kubectl(t, "get", "pods", webhookNamespace, "--selector=app.kubernetes.io/name=vaultmount-webhook", "--field-selector=status.phase=Running", "--output=jsonpath={.items[*].metadata.name}")) {
		metrics := kubectl(t, "get", "--raw", "/api/v1/namespaces/vaultmount/pods/"+pod+":8080/proxy/metrics")
		contains(t, metrics, "vaultmount_webhook_requests_total")
		requireNoSecret(t, "metrics of the webhook", metrics)
	}
}
