package component

import (
	"testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// program returns the path of the real program, built from the checkout.
func program(t *testing.T) string {
	t.Helper()
	return rig.Program(t)
}
