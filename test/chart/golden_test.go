package chart

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the chart renders for typical values, so that whoever changes a template
// sees what becomes of them.
func TestGolden(t *testing.T) {
	for name, set := range valueSets() {
		t.Run(name, func(t *testing.T) {
			var kept []string
			for _, document := range documents(mustTemplate(t, set[0], set[1:]...)) {
				// The policy and the guard are among the manifests.
				if !isMonitoringFile(document) {
					kept = append(kept, document)
				}
			}
			compare(t, "testdata/golden/"+name+".yaml", strings.Join(kept, "---\n"))
		})
	}
}

func TestLint(t *testing.T) {
	for name, set := range valueSets() {
		t.Run(name, func(t *testing.T) {
			arguments := append([]string{"lint", directory, "--strict", "--kube-version=" + set[0]}, set[1:]...)
			// Lint knows no cluster, and so no operators.
			if name == "everything" {
				arguments = append(arguments, "--set=monitoring.podMonitor.enabled=false,monitoring.serviceMonitor.enabled=false,monitoring.rules.enabled=false")
			}
			if strings.Contains(name, "cert-manager") || name == "everything" {
				arguments = append(arguments, "--set=webhook.certManager.enabled=false")
			}
			if printed, err := helm(t, arguments...); err != nil || strings.Contains(printed, "[WARNING]") {
				t.Errorf("%v\n%s", err, printed)
			}
		})
	}
}

// isMonitoringFile finds what a file of the chart's directory monitoring is in;
// TestMonitoring holds it against that file.
func isMonitoringFile(document string) bool {
	return strings.Contains(document, "\nkind: PrometheusRule\n") || strings.Contains(document, "\n  name: vaultmount-dashboard\n")
}

// What Helm prints after an install warns of what is dangerous, and is silent of what
// is not there.
func TestNotes(t *testing.T) {
	for _, test := range []struct {
		name        string
		set         string
		want, never []string
	}{
		{
			name: "webhook", set: "webhook.enabled=true",
			want: []string{
				"from https://vault.vault.svc:8200.", "get their volumes from the webhook.", `Before "helm uninstall", delete the pods`, "on each node an empty directory\n/var/lib/kubelet/plugins/csi.vaultmount.dev",
				"kubectl label namespace secrets pod-security.kubernetes.io/enforce=privileged", "Afterwards these remain: the namespace secrets",
			},
			never: []string{"WARNING", "policy in the API server", "cert-manager"},
		},
		{name: "http", set: "vault.address=http://vault:8200", want: []string{"WARNING: tokens and secrets travel to Vault unencrypted"}},
		{name: "no translation", set: "policy.enabled=false", want: []string{"are not translated", "set webhook.enabled=true"}},
		{name: "host's network", set: "webhook.enabled=true,webhook.hostNetwork=true", want: []string{"WARNING: webhook.hostNetwork"}},
		{name: "webhook that fails open", set: "webhook.enabled=true,webhook.failurePolicy=Ignore", want: []string{"WARNING: webhook.failurePolicy is Ignore", "by the guard alone"}},
		{name: "webhook that fails open without guard", set: "webhook.enabled=true,webhook.failurePolicy=Ignore,guard.enabled=false", want: []string{"start without their secrets"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			printed, err := helm(t, "install", "vaultmount", directory, "--namespace=secrets", "--dry-run=client", address, "--set="+test.set)
			require.NoError(t, err)
			_, notes, _ := strings.Cut(printed, "\nNOTES:\n")
			for _, want := range test.want {
				if !strings.Contains(notes, want) {
					t.Errorf("%q is not in:\n%s", want, notes)
				}
			}
			for _, never := range test.never {
				if strings.Contains(notes, never) {
					t.Errorf("%q is in:\n%s", never, notes)
				}
			}
		})
	}
}

// The command of deploy/README.md, as it is written there, renders what a cluster of
// the version that it names can be given with kubectl, and no more.
func TestReadmeRendersForTheClusterAlone(t *testing.T) {
	rendered, err := helm(t, readmeCommand(t)...)
	require.NoError(t, err)
	if strings.Contains(rendered, "helm.sh/hook") {
		t.Error("a hook of helm is rendered, which kubectl takes for a pod like others")
	}
	if !strings.Contains(rendered, "\nkind: Namespace\n") {
		t.Error("no namespace is rendered")
	}
	if _, err := checkAPITypes(t, oldest, documents(rendered)); err != nil {
		t.Errorf("Kubernetes %s does not take it: %v", oldest, err)
	}
}

// readmeCommand is what the command gives to helm, for the directory of the tests.
func readmeCommand(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(deploy + "/README.md")
	require.NoError(t, err)
	command := regexp.MustCompile("(?m)^helm (template (?:.*\\\\\n)*.*)$").FindSubmatch(text)
	if command == nil {
		t.Fatal("README.md has no command helm template")
	}
	arguments := strings.Fields(strings.ReplaceAll(string(command[1]), "\\\n", " "))
	for i, argument := range arguments {
		if argument == "deploy/chart" {
			arguments[i] = directory
		}
	}
	return arguments
}
