package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPodReadsItsSecret(t *testing.T) {
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	if got := readFile(t, "default", "wizard", "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
	if got := strings.Fields(kubectl(t, "get", "pod", "wizard", "--no-headers")); got[1] != "1/1" {
		t.Errorf("the pod is %s, want 1/1 and no second container", got[1])
	}
	if _, err := bed.Kubectl(t.Context(), "exec", "wizard", "--", "touch", "/vault/secrets/x"); err == nil || !strings.Contains(err.Error(), "Read-only file system") {
		t.Errorf("writing into the volume: %v", err)
	}
}

// The container asks for a writable mount, and does not get it.
func TestPodOfAnotherUserReadsByItsGroup(t *testing.T) {
	apply(t, "group.yaml")
	awaitReady(t, "default", "group")
	if got := readFile(t, "default", "group", "/vault/secrets/conf/url"); got != connection {
		t.Errorf("the file holds %q", got)
	}
	got := kubectl(t, "exec", "group", "--", "stat", "-L", "-c", "%u:%g %a", "/vault/secrets/conf/url")
	if strings.TrimSpace(got) != "100:2000 440" {
		t.Errorf("owner and mode are %s", got)
	}
	if _, err := bed.Kubectl(t.Context(), "exec", "group", "--", "touch", "/vault/secrets/x"); err == nil {
		t.Error("a container that asks for it may write into the volume")
	}
}

// What the injector's agent has in its container comes from the kubelet here, and
// a template may write further files.
func TestTemplateKnowsItsPod(t *testing.T) {
	apply(t, "surroundings.yaml")
	awaitReady(t, "default", "surroundings")
	hostIP := kubectl(t, "get", "pod", "surroundings", "-o", "jsonpath={.status.hostIP}")
	if want, got := "surroundings in default on "+hostIP, readFile(t, "default", "surroundings", "/etc/app/pod"); hostIP == "" || got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
	got := kubectl(t, "exec", "surroundings", "--", "stat", "-L", "-c", "%u:%g %a %s", "/etc/app/db/password")
	if strings.TrimSpace(got) != "100:1000 400 18" {
		t.Errorf("the written file has owner, mode and size %s", got)
	}
}

// A Job ends with its container; there is nothing else that would keep it.
func TestJobEnds(t *testing.T) {
	apply(t, "job.yaml")
	kubectl(t, "wait", "--for=condition=Complete", "job/report", "--timeout=90s")
	if got := kubectl(t, "logs", "job/report"); got != connection {
		t.Errorf("the job printed %q", got)
	}
}

func TestWrongServiceAccountNeverStartsUntilTheRoleIsFixed(t *testing.T) {
	testRefused(t, refusal{
		file: "website.yaml", namespace: "default", pod: "website",
		words: "service account name not authorized",
		hint:  "add the service account to bound_service_account_names of role",
		fix:   "bound_service_account_names=internal-app,website bound_service_account_namespaces=default",
	})
}

func TestWrongNamespaceNeverStartsUntilTheRoleIsFixed(t *testing.T) {
	testRefused(t, refusal{
		file: "issues.yaml", namespace: "offsite", pod: "issues",
		words: "namespace not authorized",
		hint:  "add the pod's namespace to bound_service_account_namespaces of role",
		fix:   "bound_service_account_names=internal-app bound_service_account_namespaces=default,offsite",
	})
}

type refusal struct {
	file, namespace, pod, words, hint, fix string
}

func testRefused(t *testing.T, r refusal) {
	t.Helper()
	apply(t, r.file)
	var description string
	eventually(t, "the pod's events hold Vault's words", func() bool {
		description = kubectl(t, "describe", "pod", r.pod, "--namespace="+r.namespace)
		return strings.Contains(description, r.words)
	})
	contains(t, description, "FailedMount")
	contains(t, description, r.hint)
	contains(t, description, `volume "vault-secrets"`)
	if state := kubectl(t, "get", "pod", r.pod, "--namespace="+r.namespace, "-o", "jsonpath={.status.phase} {.status.containerStatuses[*].state.waiting.reason}"); state != "Pending ContainerCreating" {
		t.Errorf("the pod is %s", state)
	}
	setRole(t, r.fix)
	t.Cleanup(func() {
		setRole(t, "bound_service_account_names=internal-app bound_service_account_namespaces=default")
	})
	awaitReady(t, r.namespace, r.pod)
	if got := readFile(t, r.namespace, r.pod, "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
}

// setRole runs in clean-ups as well, when the test's own context has ended.
func setRole(t *testing.T, bindings string) {
	t.Helper()
	if _, err := bed.Vault(context.Background(), "vault write auth/kubernetes/role/internal-app policies=internal-app ttl=24h "+bindings); err != nil {
		t.Error(err)
	}
}

func TestBadAttributeShowsOnThePod(t *testing.T) {
	apply(t, "typo.yaml")
	eventually(t, "the pod's events name the attribute", func() bool {
		return strings.Contains(kubectl(t, "describe", "pod", "typo"),
			`volume attribute "templat/database-config.txt": is unknown; did you mean "template/database-config.txt"?`)
	})
}

func TestWritableVolumeIsRefused(t *testing.T) {
	apply(t, "writable.yaml")
	eventually(t, "the pod's events say what to add", func() bool {
		return strings.Contains(kubectl(t, "describe", "pod", "writable"), `add "readOnly: true" beside "driver: csi.vaultmount.dev" in the volume`)
	})
	if state := kubectl(t, "get", "pod", "writable", "-o", "jsonpath={.status.phase} {.status.containerStatuses[*].state.waiting.reason}"); state != "Pending ContainerCreating" {
		t.Errorf("the pod is %s", state)
	}
}

// Kubernetes before 1.36 sends the token in the volume context; the field can be
// changed on a live CSIDriver.
func TestTokenInTheVolumeContext(t *testing.T) {
	setTransport := func(inSecrets string) {
		if _, err := bed.Kubectl(context.Background(), "patch", "csidriver", "csi.vaultmount.dev", "--type=merge", "-p", `{"spec":{"serviceAccountTokenInSecrets":`+inSecrets+`}}`); err != nil {
			t.Fatal(err)
		}
	}
	setTransport("false")
	defer setTransport("true")
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	if got := readFile(t, "default", "wizard", "/vault/secrets/database-config.txt"); got != connection {
		t.Errorf("the file holds %q", got)
	}
}

// Towards Vault the driver acts with the pod's token alone. In Kubernetes it may
// write Events, and nothing else.
func TestDriverMayWriteEventsAlone(t *testing.T) {
	bindings := map[string]int{}
	for _, kind := range []string{"rolebindings", "clusterrolebindings"} {
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Subjects []struct{ Kind, Name, Namespace string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(kubectl(t, "get", kind, "--all-namespaces", "-o", "json")), &list))
		for _, binding := range list.Items {
			for _, subject := range binding.Subjects {
				if subject.Name == "vaultmount" || subject.Name == "system:serviceaccounts:vaultmount" {
					bindings[kind+" "+binding.Metadata.Name]++
				}
			}
		}
	}
	if len(bindings) != 1 || bindings["clusterrolebindings vaultmount"] != 1 {
		t.Errorf("the driver is bound by %v", bindings)
	}
	const want = `[{"apiGroups":[""],"resources":["events"],"verbs":["create","patch"]}]`
	if rules := kubectl(t, "get", "clusterrole", "vaultmount", "-o", "jsonpath={.rules}"); rules != want {
		t.Errorf("the driver may %s, want %s", rules, want)
	}
}
