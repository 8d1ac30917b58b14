package component

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

const mebibyte = 1 << 20

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
