package bench

import (
	"os"
	"testing"

	"github.com/vaultmount/vaultmount/test/cluster"
)

func TestMain(m *testing.M) {
	cluster.Hold()
	os.Exit(m.Run())
}
