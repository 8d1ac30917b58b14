package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

// installMode is how annotated manifests become pods with volumes. The manifests and
// patches are files of testdata/tutorial.
type installMode interface {
	// apply makes what a manifest describes.
	apply(t *testing.T, namespace, manifest string)
	// patch changes the one object that a manifest has made.
	patch(t *testing.T, namespace, manifest, patch string)
}

var (
	_ installMode = byCommand{}
	_ installMode = byAdmission{}
)

// byCommand translates before anything reaches the cluster.
type byCommand struct{ program string }

func newByCommand(t *testing.T) byCommand {
	t.Helper()
	program, err := parts.Vaultmount(t.Context(), t.Output())
	require.NoError(t, err)
	return byCommand{program: program}
}

func (c byCommand) apply(t *testing.T, namespace, manifest string) {
	t.Helper()
	text, err := os.ReadFile("testdata/tutorial/" + manifest)
	require.NoError(t, err)
	c.applyTranslated(t, namespace, string(text))
}

// patch changes the manifest, since what is in the cluster is its translation.
func (c byCommand) patch(t *testing.T, namespace, manifest, patch string) {
	t.Helper()
	patched := kubectl(t, "patch", "--local", "--filename="+tutorialFile(manifest), "--patch-file="+tutorialFile(patch), "--output=yaml")
	c.applyTranslated(t, namespace, patched)
}

func (c byCommand) applyTranslated(t *testing.T, namespace, manifest string) {
	t.Helper()
	if _, err := bed.KubectlWithInput(t.Context(), c.translate(t, manifest), "apply", "--namespace="+namespace, "--filename=-"); err != nil {
		t.Fatal(err)
	}
}

func (c byCommand) translate(t *testing.T, manifest string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), c.program, "translate", "-f", "-")
	command.Stdin = strings.NewReader(manifest)
	command.Stderr = t.Output()
	translated, err := command.Output()
	require.NoError(t, err)
	return string(translated)
}

// byAdmission is what the tutorial itself does: what translates is in the cluster.
type byAdmission struct{}

func (byAdmission) apply(t *testing.T, namespace, manifest string) {
	t.Helper()
	kubectl(t, "apply", "--namespace="+namespace, "--filename="+tutorialFile(manifest))
}

func (byAdmission) patch(t *testing.T, namespace, manifest, patch string) {
	t.Helper()
	kubectl(t, "patch", "--namespace="+namespace, "--filename="+tutorialFile(manifest), "--patch-file="+tutorialFile(patch))
}
