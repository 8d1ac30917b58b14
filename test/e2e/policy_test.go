package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/test/testbed"
)

// installPolicy puts the policy and its guard into the cluster, waits until they
// act, and takes them out after the test: all tests share one cluster.
func installPolicy(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "-k", "deploy/policy")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := bed.Kubectl(ctx, "delete", "-k", "deploy/policy"); err != nil {
			t.Errorf("clean up: %v", err)
		}
		// The API server forgets a policy shortly after it is gone.
		for bed.ProbeAdmission(ctx) != (testbed.Admission{}) {
			if ctx.Err() != nil {
				t.Error("the policy is gone and still acts")
				return
			}
		}
	})
	eventually(t, "the policy and its guard act", func() bool {
		return bed.ProbeAdmission(t.Context()) == testbed.Admission{Translates: true, Guards: true}
	})
}

// The tutorial once more, on a cluster where the API server itself gives the pods
// their volumes.
func TestTutorialByPolicy(t *testing.T) {
	installPolicy(t)
	playTutorial(t, byAdmission{})
}

// What the policy cannot translate is rejected with the reason and the way out,
// and a pod that does not ask is left alone.
func TestPolicyRejectsWithReason(t *testing.T) {
	installPolicy(t)
	pod := func(annotation string) string {
		return `
apiVersion: v1
kind: Pod
metadata:
  name: rejected
  annotations:
    vault.hashicorp.com/agent-inject: "true"
    vault.hashicorp.com/role: internal-app
    vault.hashicorp.com/agent-inject-secret-db: kv/db
    ` + annotation + `
spec:
  shareProcessNamespace: false
  containers: [{name: app, image: app, volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, emptyDir: {}}]`
	}
	for annotation, want := range map[string]string{
		`vault.hashicorp.com/agent-inject-containers: "app, b"`:            `vault.hashicorp.com/agent-inject-containers: the pod has no container "b", which would start without its secrets`,
		`vault.hashicorp.com/agent-inject-containers: "a\nb"`:              `the pod has no container "a\nb"`,
		`vault.hashicorp.com/agent-inject-containers: ""`:                  `vault.hashicorp.com/agent-inject-containers: names no container, so nothing would have the secrets; remove it to have them in all`,
		`vault.hashicorp.com/secret-volume-path: ""`:                       `vault.hashicorp.com/secret-volume-path: not a directory to mount at; write an absolute path such as /vault/secrets`,
		`vault.hashicorp.com/secret-volume-path-db: /vault/../data`:        `vault.hashicorp.com/secret-volume-path-db: the policy does not follow ".." in a path; write the path without it`,
		`vault.hashicorp.com/secret-volume-path-db: /data`:                 `vault.hashicorp.com/secret-volume-path-db: the container app mounts data at /data, where the secrets go; choose another directory for one of them`,
		`vault.hashicorp.com/agent-share-process-namespace: "true"`:        `vault.hashicorp.com/agent-share-process-namespace: shareProcessNamespace explicitly disabled on the pod, refusing to enable it; remove one of the two`,
		`vault.hashicorp.com/agent-configmap: config`:                      `vault.hashicorp.com/agent-configmap: is not supported; move its templates to agent-inject-template-FILE`,
		`vaultmount.dev/not-translated: "a reason of the pod\nits own"`:    "",
		`vault.hashicorp.com/agent-inject-secret-2: "{{ not a template }"`: "",
	} {
		_, err := bed.KubectlWithInput(t.Context(), pod(annotation), "create", "--dry-run=server", "--filename=-")
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", annotation, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'vaultmount-guard'") || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %s", annotation, err, want)
		}
	}
}

// The guard alone, as it is beside a webhook: it rejects what nothing has translated,
// also if the injector's mark says otherwise, and leaves pods of the injector alone.
func TestGuardWithoutTranslation(t *testing.T) {
	kubectl(t, "apply", "-k", "deploy/guard")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := bed.Kubectl(ctx, "delete", "-k", "deploy/guard"); err != nil {
			t.Errorf("clean up: %v", err)
		}
		for bed.ProbeAdmission(ctx) != (testbed.Admission{}) && ctx.Err() == nil {
		}
	})
	eventually(t, "the guard acts", func() bool {
		return bed.ProbeAdmission(t.Context()) == testbed.Admission{Guards: true}
	})
	payroll := "--filename=" + tutorialFile("pod-payroll.yaml")
	_, err := bed.Kubectl(t.Context(), "create", "--dry-run=server", payroll)
	if err == nil || !strings.Contains(err.Error(), "vault.hashicorp.com/agent-inject: nothing has translated the pod's annotations, so it would start without its secrets") {
		t.Errorf("an annotated pod: %v", err)
	}
	marked := kubectl(t, "annotate", "--local", "--output=yaml", payroll, "vault.hashicorp.com/agent-inject-status=injected")
	injected := strings.Replace(marked, "containers:\n", "containers:\n  - {name: vault-agent, image: vault}\n", 1)
	translated := newByCommand(t).translate(t, kubectl(t, "create", "--dry-run=client", "--output=yaml", payroll))
	for name, manifest := range map[string]string{"injected": injected, "translated": translated} {
		if _, err := bed.KubectlWithInput(t.Context(), manifest, "create", "--dry-run=server", "--filename=-"); err != nil {
			t.Errorf("a pod that is %s: %v", name, err)
		}
	}
	_, err = bed.KubectlWithInput(t.Context(), marked, "create", "--dry-run=server", "--filename=-")
	if err == nil || !strings.Contains(err.Error(), "agent-inject-status: the pod is marked as injected, but has neither a secrets volume nor a Vault Agent") {
		t.Errorf("a pod with the mark alone: %v", err)
	}
	if _, err := bed.Kubectl(t.Context(), "create", "--dry-run=server", "--filename=test/e2e/testdata/wizard.yaml"); err != nil {
		t.Errorf("a volume that is read-only: %v", err)
	}
	// This is a policy of its own, which may act shortly later.
	eventually(t, "a volume that is not read-only is rejected", func() bool {
		_, err := dryRun(t, "writable.yaml", "default")
		return err != nil && strings.Contains(err.Error(), `add "readOnly: true" beside "driver: csi.vaultmount.dev"`)
	})
	if _, err := bed.Kubectl(t.Context(), "create", "--dry-run=server", "--filename="+tutorialFile("deployment-orgchart.yaml")); err != nil {
		t.Errorf("what does not ask: %v", err)
	}
}
