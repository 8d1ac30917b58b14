package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the driver publishes for the policy's volumes and for the translator's own
// is the same to the byte, with the same owners and modes, in every container.
func TestPolicyAndTranslationMakeTheSameFiles(t *testing.T) {
	text, err := os.ReadFile("testdata/same-files.yaml")
	require.NoError(t, err)
	setUpAppRole(t)
	var byPolicy, byTranslation map[string]string
	t.Run("by policy", func(t *testing.T) {
		installPolicy(t)
		byPolicy = runAnnotated(t, string(text))
		contains(t, kubectl(t, "get", "pod", "plain", "--output=jsonpath={.spec.volumes[*].csi.volumeAttributes}"), `"vault.hashicorp.com/role":"internal-app"`)
		// In a file: of a container that lives for milliseconds, a busy node may lose the log.
		if got := kubectl(t, "exec", "custom-paths", "--container=app", "--", "cat", "/seen/all"); got != strings.Repeat(connection, 4) {
			t.Errorf("the init container read %q\n%s\n%s", got, byPolicy["custom-paths app"], kubectl(t, "describe", "pod", "custom-paths"))
		}
	})
	t.Run("by translation", func(t *testing.T) {
		byTranslation = runAnnotated(t, newByCommand(t).translate(t, string(text)))
	})
	for _, container := range slices.Sorted(maps.Keys(byPolicy)) {
		if byPolicy[container] != byTranslation[container] {
			t.Errorf("%s sees\n%sand by translation\n%s", container, byPolicy[container], byTranslation[container])
		}
	}
	for _, want := range []string{
		"custom-paths third: /etc/own/own 100:1000 644", "custom-paths app: /vault/secrets/deep/inside/inside 100:1000 644", "custom-paths app: /etc/other/other 100:1000 644",
		"json app: /app/secrets/conf/deep/config.json 100:1000 644", "names app: /vault/secrets/UPPER 100:1000 644", "names app: /vault/secrets/lower 100:1000 644",
		"same-user app: /vault/secrets/url 1234:1000 400", "pod-user app: /vault/secrets/url 2000:3000 440", "group app: /vault/secrets/url 100:4000 440",
		"run-as app: /vault/secrets/url 65534:5000 644", "declared app: /etc/app.conf 100:1000 644", "no-token app: /vault/secrets/url 100:1000 644",
		"token-volume app: /vault/secrets/url 100:1000 644", "token-path app: /vault/secrets/url 100:1000 644", "approle app: /vault/secrets/url 100:1000 644",
	} {
		container, file, _ := strings.Cut(want, ": ")
		if !strings.Contains(byPolicy[container], file+" ") {
			t.Errorf("%s is not in what %s sees:\n%s", file, container, byPolicy[container])
		}
	}
	if got, present := byPolicy["custom-paths second"]; got != "" || !present {
		t.Errorf("a container that is not to have the secrets sees %s", got)
	}
}

// setUpAppRole is for the pod that enters Vault by the keys of a Secret.
func setUpAppRole(t *testing.T) {
	t.Helper()
	ids := strings.Fields(vault(t, `
		vault auth enable -path=annotated approle >/dev/null
		vault write auth/annotated/role/app token_policies=internal-app >/dev/null
		vault read -field=role_id auth/annotated/role/app/role-id; echo
		vault write -force -field=secret_id auth/annotated/role/app/secret-id`))
	t.Cleanup(func() {
		if _, err := bed.Vault(context.Background(), "vault auth disable annotated"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if len(ids) != 2 {
		t.Fatalf("Vault gives %d ids", len(ids))
	}
	kubectl(t, "create", "secret", "generic", "annotated", "--from-literal=role-id="+ids[0], "--from-literal=secret-id="+ids[1])
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "secret", "annotated"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

// runAnnotated starts the pods and lists the files of the volumes, by pod and
// container: name, owner, mode and digest.
func runAnnotated(t *testing.T, manifest string) map[string]string {
	t.Helper()
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "pods", "--selector=app=annotated", "--timeout=90s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if _, err := bed.KubectlWithInput(t.Context(), manifest, "apply", "--filename=-"); err != nil {
		t.Fatal(err)
	}
	if _, err := bed.Kubectl(t.Context(), "wait", "--for=condition=Ready", "pods", "--selector=app=annotated", "--timeout=120s"); err != nil {
		t.Fatalf("%v\n%s", err, kubectl(t, "describe", "pods", "--selector=app=annotated"))
	}
	const list = `find /vault/secrets /etc/own /etc/other /etc/app.conf /app -follow -type f ! -path '*/..*' 2>/dev/null | sort |
		while read -r file; do echo "$(stat -L -c '%n %u:%g %a' "$file") $(sha256sum <"$file")"; done`
	files := map[string]string{}
	for line := range strings.Lines(kubectl(t, "get", "pods", "--selector=app=annotated", `--output=jsonpath={range .items[*]}{.metadata.name}{range .spec.containers[*]} {.name}{end}{"\n"}{end}`)) {
		words := strings.Fields(line)
		for _, container := range words[1:] {
			files[words[0]+" "+container] = kubectl(t, "exec", words[0], "--container="+container, "--", "sh", "-c", list)
		}
	}
	return files
}

// The kinds of pods that the tutorial has none of.
func TestAnnotatedPodsByPolicy(t *testing.T) {
	installPolicy(t)
	playAnnotated(t)
	t.Run("a refusal of the driver", func(t *testing.T) {
		const pod = `
apiVersion: v1
kind: Pod
metadata:
  name: commanding
  annotations:
    vault.hashicorp.com/agent-inject: "true"
    vault.hashicorp.com/role: internal-app
    vault.hashicorp.com/agent-inject-secret-db: internal/data/database/config
    vault.hashicorp.com/agent-inject-command-db: kill -HUP 1
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: "busybox:vaultmount-test"}]`
		if _, err := bed.KubectlWithInput(t.Context(), pod, "apply", "--filename=-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := bed.Kubectl(context.Background(), "delete", "pod", "commanding", "--timeout=60s"); err != nil {
				t.Errorf("clean up: %v", err)
			}
		})
		want := fmt.Sprintf("volume attribute %q: vaultmount has no agent to run commands", "vault.hashicorp.com/agent-inject-command-db")
		eventually(t, "the pod's events name the annotation", func() bool {
			return strings.Contains(kubectl(t, "describe", "pod", "commanding"), want)
		})
	})
}
