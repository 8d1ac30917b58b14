package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"
)

// playAnnotated tries the kinds of pods that the tutorial has none of, on a
// cluster where something translates annotations.
func playAnnotated(t *testing.T) {
	t.Run("a Job ends", func(t *testing.T) {
		apply(t, "annotated/job.yaml")
		kubectl(t, "wait", "--for=condition=Complete", "job/annotated", "--timeout=90s")
		if got := kubectl(t, "logs", "job/annotated"); got != connection {
			t.Errorf("the job printed %q", got)
		}
	})
	t.Run("an init container reads", func(t *testing.T) {
		apply(t, "annotated/init.yaml")
		awaitReady(t, "default", "init")
		if got := kubectl(t, "logs", "init", "--container=reads"); got != connection {
			t.Errorf("the init container printed %q", got)
		}
	})
	t.Run("no container writes", noContainerOfAnAnnotatedPodWrites)
	t.Run("paths of its own, and no token", func(t *testing.T) {
		apply(t, "annotated/paths.yaml")
		awaitReady(t, "default", "paths")
		if got := readFile(t, "default", "paths", "/etc/url/conf/database.url"); got != connection {
			t.Errorf("the file holds %q", got)
		}
		form := `^{"data":{"password":"db-secret-password","username":"db-readonly-username"},"metadata":{"created_time":"\S+Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}}\n$`
		if got := readFile(t, "default", "paths", "/etc/all/all"); !regexp.MustCompile(form).MatchString(got) {
			t.Errorf("the file holds %q", got)
		}
		if got := kubectl(t, "exec", "paths", "--", "sh", "-c", "ls -d /vault/secrets /var/run/secrets/kubernetes.io 2>/dev/null || true"); got != "" {
			t.Errorf("the pod has %q", got)
		}
	})
	t.Run("a restricted namespace", func(t *testing.T) {
		bindings := "bound_service_account_names=internal-app bound_service_account_namespaces=restricted"
		vault(t, "vault write auth/kubernetes/role/restricted-app policies=internal-app ttl=24h "+bindings)
		t.Cleanup(func() {
			if _, err := bed.Vault(context.Background(), "vault delete auth/kubernetes/role/restricted-app"); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
		apply(t, "annotated/restricted.yaml")
		awaitReady(t, "restricted", "app")
		if got := readFile(t, "restricted", "app", "/vault/secrets/url"); got != connection {
			t.Errorf("the file holds %q", got)
		}
		got := kubectl(t, "exec", "app", "--namespace=restricted", "--", "stat", "-L", "-c", "%u:%g %a", "/vault/secrets/url")
		if strings.TrimSpace(got) != "100:2000 440" {
			t.Errorf("owner and mode are %s", got)
		}
		_, err := bed.Kubectl(t.Context(), "run", "root", "--namespace=restricted", "--image=busybox:vaultmount-test")
		if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted:latest"`) {
			t.Errorf("the namespace restricts nothing: %v", err)
		}
	})
}
