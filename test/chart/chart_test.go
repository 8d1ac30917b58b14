// Package chart tests the Helm chart of vaultmount and the manifests made from it,
// with the real helm and without a cluster: what it renders for which values and
// which Kubernetes, what it refuses, and that others accept what it renders - the
// API types of each supported Kubernetes, the Pod Security levels, the program's
// own command line.
//
// It installs nothing. What an install does to a cluster, e2e tests.
package chart

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/test/parts"
)

// update is what make manifests sets.
var update = flag.Bool("update", false, "write the manifests, the table of values and the golden files")

// directory of the chart, and of the manifests beside it.
const (
	directory = "../../deploy/chart"
	deploy    = "../../deploy"
)

// oldest and newest Kubernetes that the chart is for.
const (
	oldest = "1.30"
	newest = "1.37"
)

var helmProgram = sync.OnceValues(func() (string, error) { return parts.Helm(context.Background(), os.Stderr) })

// helm runs helm and returns what it printed. The error is what it output.
func helm(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	program, err := helmProgram()
	require.NoError(t, err)
	home := t.TempDir() // nobody's repositories and plugins
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=/dev/null")
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// operators are the APIs that values of monitoring and cert-manager need.
const operators = "--api-versions=monitoring.coreos.com/v1,cert-manager.io/v1"

// template renders the chart for one version of Kubernetes.
func template(t *testing.T, version string, arguments ...string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "vaultmount", directory, "--namespace=vaultmount", "--kube-version=" + version, operators}, arguments...)...)
}

func mustTemplate(t *testing.T, version string, arguments ...string) string {
	t.Helper()
	rendered, err := template(t, version, arguments...)
	require.NoError(t, err)
	return rendered
}

// values is a file of testdata, as an argument of helm.
func values(name string) string { return "--values=testdata/values/" + name + ".yaml" }

// address sets what must be set.
const address = "--set=vault.address=https://vault.vault.svc:8200"

// valueSets are files of values together with the Kubernetes that they are rendered
// for. The policy's text is in the newest only: older ones have none.
func valueSets() map[string][]string {
	return map[string][]string{
		"default":              {oldest, values("default")},
		"webhook":              {oldest, values("webhook")},
		"webhook-cert-manager": {oldest, values("webhook-cert-manager")},
		"policy":               {newest, values("policy")},
		"openshift":            {oldest, "--values=" + directory + "/values-openshift.yaml", values("openshift")},
		"openshift-policy":     {newest, "--values=" + directory + "/values-openshift.yaml", values("openshift-policy")},
		"everything":           {newest, values("everything")},
	}
}

// documents takes what helm printed asunder. Helm's remarks about where a document
// comes from are left out, and so are the empty lines around documents.
func documents(rendered string) []string {
	var all []string
	for document := range strings.SplitSeq("\n"+rendered, "\n---\n") {
		var kept []string
		for line := range strings.Lines(document) {
			if !strings.HasPrefix(line, "# Source: ") {
				kept = append(kept, line)
			}
		}
		if text := strings.TrimSpace(strings.Join(kept, "")); text != "" {
			all = append(all, text+"\n")
		}
	}
	return all
}

// object is the document of a kind and a name, decoded into a Kubernetes type.
func object[T any](t *testing.T, rendered, kind, name string) *T {
	t.Helper()
	for _, document := range documents(rendered) {
		var head struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		require.NoError(t, yaml.Unmarshal([]byte(document), &head))
		if head.Kind != kind || head.Metadata.Name != name {
			continue
		}
		decoded := new(T)
		require.NoError(t, yaml.UnmarshalStrict([]byte(document), decoded))
		return decoded
	}
	t.Fatalf("there is no %s %s in\n%s", kind, name, rendered)
	return nil
}

// compare holds a text against a file of the checkout, or writes the file.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			t.Fatalf("%s is not what the chart makes, from line %d on; run make manifests, and look at what changes\nfile:  %s\nchart: %s",
				path, i+1, lineAt(wantLines, i), lineAt(gotLines, i))
		}
	}
}

func lineAt(lines []string, i int) string {
	if i >= len(lines) {
		return "(its end)"
	}
	return lines[i]
}
