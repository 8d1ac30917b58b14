package e2e

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/parts"
)

// The tutorial of the Vault Agent Injector, with its own manifests, on a cluster
// with no admission component: each is translated by command before it is
// applied. What the tutorial shows, shows here, but for the second container.
func TestTutorialByCommand(t *testing.T) {
	play := newTutorial(t)
	t.Run("without annotations there is nothing", func(t *testing.T) {
		play.apply(t, "default", play.manifest(t, "deployment-orgchart.yaml"))
		pod := play.awaitPod(t, "default", "orgchart")
		if _, err := bed.Kubectl(t.Context(), "exec", pod, "--", "ls", "/vault/secrets"); err == nil || !strings.Contains(err.Error(), "No such file or directory") {
			t.Errorf("ls /vault/secrets: %v", err)
		}
	})
	t.Run("a secret as it is", func(t *testing.T) {
		play.apply(t, "default", play.patched(t, "deployment-orgchart.yaml", "patch-inject-secrets.yaml"))
		got := play.secret(t, "default", "orgchart")
		form := `^data: map\[password:db-secret-password username:db-readonly-username\]\nmetadata: map\[created_time:\S+Z custom_metadata:<nil> deletion_time: destroyed:false version:1\]\n$`
		if !regexp.MustCompile(form).MatchString(got) {
			t.Errorf("the file holds %q", got)
		}
	})
	t.Run("a secret in a template", func(t *testing.T) {
		play.apply(t, "default", play.patched(t, "deployment-orgchart.yaml", "patch-inject-secrets-as-template.yaml"))
		play.requireConnection(t, "default", "orgchart")
	})
	t.Run("a pod of its own", func(t *testing.T) {
		play.apply(t, "default", play.manifest(t, "pod-payroll.yaml"))
		play.requireConnection(t, "default", "payroll")
		if got := strings.Fields(kubectl(t, "get", "pod", "payroll", "--no-headers")); got[1] != "1/1" {
			t.Errorf("the pod is %s", got[1])
		}
	})
	t.Run("another service account", func(t *testing.T) {
		play.apply(t, "default", play.manifest(t, "deployment-website.yaml"))
		play.requireRefusal(t, "default", "website", "service account name not authorized")
		// No annotation changes here, so the patch goes to the cluster as it is.
		kubectl(t, "patch", "deployment", "website", "--patch-file="+tutorialFile("patch-website.yaml"))
		play.requireConnection(t, "default", "website")
	})
	t.Run("another namespace", func(t *testing.T) {
		kubectl(t, "create", "namespace", "offsite")
		kubectl(t, "create", "serviceaccount", "internal-app", "--namespace=offsite")
		play.apply(t, "offsite", play.manifest(t, "deployment-issues.yaml"))
		play.requireRefusal(t, "offsite", "issues", "namespace not authorized")
		vault(t, "vault write auth/kubernetes/role/offsite-app bound_service_account_names=internal-app bound_service_account_namespaces=offsite policies=internal-app ttl=24h")
		play.apply(t, "offsite", play.patched(t, "deployment-issues.yaml", "patch-issues.yaml"))
		play.requireConnection(t, "offsite", "issues")
	})
}

// tutorial plays the steps: the program translates, kubectl does the rest.
type tutorial struct{ program string }

func newTutorial(t *testing.T) tutorial {
	t.Helper()
	program, err := parts.Vaultmount(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		for _, what := range [][]string{{"deployment", "orgchart", "website"}, {"pod", "payroll"}, {"serviceaccount", "website"}, {"namespace", "offsite"}} {
			if _, err := bed.Kubectl(ctx, append([]string{"delete", "--ignore-not-found", "--timeout=60s"}, what...)...); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	})
	return tutorial{program: program}
}

func tutorialFile(name string) string { return "test/e2e/testdata/tutorial/" + name }

func (p tutorial) manifest(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/tutorial/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// patched is a manifest after "kubectl patch", before it reaches the cluster.
func (p tutorial) patched(t *testing.T, name, patch string) string {
	t.Helper()
	return kubectl(t, "patch", "--local", "--filename="+tutorialFile(name), "--patch-file="+tutorialFile(patch), "--output=yaml")
}

func (p tutorial) apply(t *testing.T, namespace, manifest string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), p.program, "translate", "-f", "-")
	command.Stdin = strings.NewReader(manifest)
	command.Stderr = t.Output()
	translated, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bed.KubectlWithInput(t.Context(), string(translated), "apply", "--namespace="+namespace, "--filename=-"); err != nil {
		t.Fatal(err)
	}
}

// awaitPod waits until the newest pod of an app is the only one, and ready.
func (p tutorial) awaitPod(t *testing.T, namespace, app string) string {
	t.Helper()
	if app != "payroll" {
		kubectl(t, "rollout", "status", "deployment/"+app, "--namespace="+namespace, "--timeout=90s")
	}
	var name string
	eventually(t, "the old pod of "+app+" is gone", func() bool {
		names := strings.Fields(kubectl(t, "get", "pod", "--selector=app="+app, "--namespace="+namespace, "-o", "name"))
		if len(names) == 1 {
			name = names[0]
		}
		return len(names) == 1
	})
	awaitReady(t, namespace, strings.TrimPrefix(name, "pod/"))
	return name
}

func (p tutorial) secret(t *testing.T, namespace, app string) string {
	t.Helper()
	return kubectl(t, "exec", p.awaitPod(t, namespace, app), "--namespace="+namespace, "--container", app, "--", "cat", "/vault/secrets/database-config.txt")
}

func (p tutorial) requireConnection(t *testing.T, namespace, app string) {
	t.Helper()
	if got := p.secret(t, namespace, app); got != connection {
		t.Errorf("the file holds %q", got)
	}
}

func (p tutorial) requireRefusal(t *testing.T, namespace, app, words string) {
	t.Helper()
	eventually(t, "an event of "+app+" says "+words, func() bool {
		return strings.Contains(kubectl(t, "describe", "pod", "--selector=app="+app, "--namespace="+namespace), words)
	})
	if phase := kubectl(t, "get", "pod", "--selector=app="+app, "--namespace="+namespace, "-o", "jsonpath={.items[*].status.phase}"); phase != "Pending" {
		t.Errorf("the pod is %s", phase)
	}
}
