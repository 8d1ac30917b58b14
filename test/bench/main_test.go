package bench

import (
	"testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
