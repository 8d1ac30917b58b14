package chart

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

// What the chart renders for a version of Kubernetes is of kinds that this version
// has, with fields that it knows. Kinds of other projects are left out.
func TestAPITypes(t *testing.T) {
	for minor := 30; minor <= 37; minor++ {
		version := fmt.Sprintf("1.%d", minor)
		t.Run(version, func(t *testing.T) {
			kinds := map[string]bool{}
			for name, set := range valueSets() {
				if name == "policy" && minor < 36 {
					continue // TestRefusedValues has that refused
				}
				var ours []string
				for _, document := range documents(mustTemplate(t, version, set[1:]...)) {
					if !strings.Contains(document, "\napiVersion: monitoring.coreos.com/") && !strings.Contains("\n"+document, "\napiVersion: cert-manager.io/") && !strings.HasPrefix(document, "apiVersion: monitoring.coreos.com/") {
						ours = append(ours, document)
					}
				}
				printed, err := checkAPITypes(t, version, ours)
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				for line := range strings.Lines(printed) {
					_, kind, _ := strings.Cut(strings.TrimSpace(line), "Kind=")
					kinds[kind] = true
				}
			}
			if got, want := kinds["MutatingAdmissionPolicy"], minor >= 36; got != want {
				t.Errorf("a policy is rendered: %t", got)
			}
			for _, kind := range []string{"CSIDriver", "DaemonSet", "Deployment", "MutatingWebhookConfiguration", "NetworkPolicy", "PodDisruptionBudget", "ValidatingAdmissionPolicy"} {
				if !kinds[kind] {
					t.Errorf("no %s was looked at", kind)
				}
			}
		})
	}
}

// The check itself: it finds a misspelt field and an unknown kind.
func TestAPITypesFindMistakes(t *testing.T) {
	rendered := mustTemplate(t, newest, values("policy"))
	rendered = strings.Replace(rendered, "attachRequired:", "attachrequired:", 1)
	_, err := checkAPITypes(t, oldest, documents(rendered))
	if err == nil {
		t.Fatal("it finds nothing")
	}
	for _, want := range []string{`unknown field "spec.attachrequired"`, `unknown field "spec.serviceAccountTokenInSecrets"`, `no kind "MutatingAdmissionPolicy" is registered`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

// checkAPITypes holds documents against the types of one version of Kubernetes. It
// returns their kinds, one a line; the error is what does not fit.
func checkAPITypes(t *testing.T, version string, documents []string) (string, error) {
	t.Helper()
	program, err := parts.APITypes(t.Context(), version, os.Stderr)
	require.NoError(t, err)
	command := exec.CommandContext(t.Context(), program)
	command.Stdin = strings.NewReader(strings.Join(documents, "---\n"))
	var stderr bytes.Buffer
	command.Stderr = &stderr
	printed, err := command.Output()
	if err != nil {
		return string(printed), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return string(printed), nil
}

// What the default is, by version: the newest field and the policy from 1.36 on.
func TestDefaultsByVersion(t *testing.T) {
	for minor, want := range map[int]bool{30: false, 35: false, 36: true, 37: true} {
		rendered := mustTemplate(t, fmt.Sprintf("1.%d", minor), address)
		if got := strings.Contains(rendered, "\n  serviceAccountTokenInSecrets: true"); got != want {
			t.Errorf("1.%d: tokens are sent apart: %t", minor, got)
		}
		if got := strings.Contains(rendered, "\nkind: MutatingAdmissionPolicy\n"); got != want {
			t.Errorf("1.%d: the policy is there: %t", minor, got)
		}
		if got := strings.Contains(rendered, "\n  name: vaultmount-guard\n"); got != want {
			t.Errorf("1.%d: the guard is there: %t", minor, got)
		}
	}
	rendered := mustTemplate(t, newest, address, "--set=webhook.enabled=true")
	if strings.Contains(rendered, "\nkind: MutatingAdmissionPolicy\n") || !strings.Contains(rendered, "\n  name: vaultmount-guard\n") {
		t.Error("beside the webhook there is a policy, or no guard")
	}
	if overridden := mustTemplate(t, "1.35", address, "--set=driver.tokensInSecrets=true"); !strings.Contains(overridden, "\n  serviceAccountTokenInSecrets: true") {
		t.Error("driver.tokensInSecrets=true changes nothing")
	}
}
