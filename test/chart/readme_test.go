package chart

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

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
