package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"
)

// The tutorial of the Vault Agent Injector, in order and with its own manifests,
// on a cluster with no admission component: each manifest is translated by command
// before it is applied.
func TestTutorialByCommand(t *testing.T) {
	playTutorial(t, newByCommand(t))
}

// playTutorial plays the tutorial's steps. What the tutorial shows, shows here,
// whichever way its manifests come in, but for the second container.
func playTutorial(t *testing.T, in installMode) {
	t.Cleanup(func() { removeTutorial(t) })
	play := tutorial{in}
	t.Run("without annotations there is nothing", func(t *testing.T) {
		play.apply(t, "default", "deployment-orgchart.yaml")
		pod := play.awaitPod(t, "default", "orgchart")
		if _, err := bed.Kubectl(t.Context(), "exec", pod, "--", "ls", "/vault/secrets"); err == nil || !strings.Contains(err.Error(), "No such file or directory") {
			t.Errorf("ls /vault/secrets: %v", err)
		}
	})
	t.Run("a secret as it is", func(t *testing.T) {
		play.patch(t, "default", "deployment-orgchart.yaml", "patch-inject-secrets.yaml")
		got := play.secret(t, "default", "orgchart")
		form := `^data: map\[password:db-secret-password username:db-readonly-username\]\nmetadata: map\[created_time:\S+Z custom_metadata:<nil> deletion_time: destroyed:false version:1\]\n$`
		if !regexp.MustCompile(form).MatchString(got) {
			t.Errorf("the file holds %q", got)
		}
	})
	t.Run("a secret in a template", func(t *testing.T) {
		play.patch(t, "default", "deployment-orgchart.yaml", "patch-inject-secrets-as-template.yaml")
		play.requireConnection(t, "default", "orgchart")
	})
	t.Run("a pod of its own", func(t *testing.T) {
		play.apply(t, "default", "pod-payroll.yaml")
		play.requireConnection(t, "default", "payroll")
		if got := strings.Fields(kubectl(t, "get", "pod", "payroll", "--no-headers")); got[1] != "1/1" {
			t.Errorf("the pod is %s", got[1])
		}
	})
	t.Run("another service account", func(t *testing.T) {
		play.apply(t, "default", "deployment-website.yaml")
		play.requireRefusal(t, "default", "website", "service account name not authorized")
		// No annotation changes here, so the patch goes to the cluster as it is.
		kubectl(t, "patch", "deployment", "website", "--patch-file="+tutorialFile("patch-website.yaml"))
		play.requireConnection(t, "default", "website")
	})
	t.Run("another namespace", func(t *testing.T) {
		kubectl(t, "create", "namespace", "offsite")
		kubectl(t, "create", "serviceaccount", "internal-app", "--namespace=offsite")
		play.apply(t, "offsite", "deployment-issues.yaml")
		play.requireRefusal(t, "offsite", "issues", "namespace not authorized")
		vault(t, "vault write auth/kubernetes/role/offsite-app bound_service_account_names=internal-app bound_service_account_namespaces=offsite policies=internal-app ttl=24h")
		play.patch(t, "offsite", "deployment-issues.yaml", "patch-issues.yaml")
		play.requireConnection(t, "offsite", "issues")
	})
}

// removeTutorial leaves the cluster and Vault as they were before.
func removeTutorial(t *testing.T) {
	ctx := context.Background()
	for _, what := range [][]string{{"deployment", "orgchart", "website"}, {"pod", "payroll"}, {"serviceaccount", "website"}, {"namespace", "offsite"}} {
		if _, err := bed.Kubectl(ctx, append([]string{"delete", "--ignore-not-found", "--cascade=foreground", "--timeout=60s"}, what...)...); err != nil {
			t.Errorf("clean up: %v", err)
		}
	}
	if _, err := bed.Vault(ctx, "vault delete auth/kubernetes/role/offsite-app"); err != nil {
		t.Errorf("clean up: %v", err)
	}
}

// tutorial plays the steps over an installation mode.
type tutorial struct{ installMode }

func tutorialFile(name string) string { return "test/e2e/testdata/tutorial/" + name }

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
