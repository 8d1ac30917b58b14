package parts

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/semver"
)

func TestUnknownSourceOfTheRuntimeIsRefused(t *testing.T) {
	_, err := (&builder{}).runtime(t.Context(), "newest")
	if want := `"newest" is neither "packaged" nor "current"`; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func TestRuncNeedsACompiler(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := (&builder{}).runc(t.Context(), "/include", "/lib")
	if want := "install gcc and libc6-dev"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v, want %q in it", err, want)
	}
}

// The versions are those that the test cluster promises: a module that is tidied or
// updated does not take it back to an older one.
func TestCurrentRuntimeIsCurrent(t *testing.T) {
	sources, err := findSources()
	require.NoError(t, err)
	for part, want := range map[string]struct{ module, version string }{
		"containerd": {"github.com/containerd/containerd/v2", "v2.4"},
		"runc":       {"github.com/opencontainers/runc", "v1.5"},
		"etcd":       {"go.etcd.io/etcd/server/v3", "v3.6"},
		"cni":        {"github.com/containernetworking/plugins", "v1.10"},
	} {
		version, err := required(filepath.Join(sources, part, "go.mod"), want.module)
		if err != nil {
			t.Error(err)
		}
		if got := semver.MajorMinor(version); got != want.version {
			t.Errorf("%s is %s, want %s", part, got, want.version)
		}
	}
}
