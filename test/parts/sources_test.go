package parts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSourcesAreFoundFromAnywhereInTheCheckout(t *testing.T) {
	want, err := os.Getwd()
	require.NoError(t, err)
	for _, dir := range []string{".", "kubernetes", "..", "../.."} {
		t.Run(dir, func(t *testing.T) {
			t.Chdir(filepath.Join(want, dir))
			if got, err := findSources(); err != nil || got != want {
				t.Errorf("found %q, %v; want %q", got, err, want)
			}
		})
	}
	t.Chdir(t.TempDir())
	if got, err := findSources(); err == nil {
		t.Errorf("found %q outside", got)
	}
}

func TestReleaseName(t *testing.T) {
	const osRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"
	if got := releaseName(osRelease); got != "debian 12" {
		t.Errorf("release is %q", got)
	}
}

func TestKubernetesLinkFlags(t *testing.T) {
	const want = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2" +
		" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
	if got := kubernetesLinkFlags("v1.37.2"); got != want {
		t.Errorf("flags are %q; want %q", got, want)
	}
}
