package checkpoint_test

import (
	"testing"

	"github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// A part of the state is for tokens to revoke, which it knows by their keys. Two namespaces
// cannot take more than the rest, nor their tokens more than the reserve.
func TestStateKeepsAReserveForRevocations(t *testing.T) {
	if checkpoint.Reserved != provider.RevocationPrefix {
		t.Errorf("the reserve is for %q, and revocations are %q", checkpoint.Reserved, provider.RevocationPrefix)
	}
	if share := limits.NamespaceCheckpointBytes.Max() + limits.NamespaceMountBytes.Max(); 2*share != checkpoint.Records {
		t.Errorf("the share of a namespace is %d bytes of %d", share, checkpoint.Records)
	}
	if share := limits.NamespaceTokenBytes.Max(); 2*share != checkpoint.Reserve {
		t.Errorf("the tokens of a namespace take %d bytes of the reserve of %d", share, checkpoint.Reserve)
	}
	if most := checkpoint.Records + checkpoint.Reserve + limits.CheckpointBytes.Max(); most != checkpoint.Size {
		t.Errorf("records, the reserve and one that is written come to %d bytes of %d", most, checkpoint.Size)
	}
}
