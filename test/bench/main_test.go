package bench

import (
	"testing"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/rig"
)

func TestMain(m *testing.M) {
	cluster.Hold()
	rig.Main(m)
}
