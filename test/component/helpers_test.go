package component

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/test/rig"
)

const mebibyte = 1 << 20

func newMounter(t *testing.T) *tmpfs.Mounter {
	t.Helper()
	mounter, err := tmpfs.NewMounter(rig.DriverName)
	if err != nil {
		t.Fatal(err)
	}
	return mounter
}

// newTarget returns the target path of a volume that is gone after the test.
func newTarget(t *testing.T) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "mount")
	t.Cleanup(func() {
		if err := tmpfs.Remove(target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return target
}

func mustRead(t *testing.T, parts ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func requireNothing(t *testing.T, target string) {
	t.Helper()
	rig.RequireNothing(t, target)
}
