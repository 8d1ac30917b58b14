package provider

import (
	"testing"

	state "github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The driver keeps a part of the state for tokens to revoke, which it knows by their keys,
// and two namespaces cannot take more than the rest.
func TestStateKeepsAReserveForRevocations(t *testing.T) {
	if state.Reserved != revocationPrefix {
		t.Errorf("the reserve is for %q, and revocations are %q", state.Reserved, revocationPrefix)
	}
	if share := limits.NamespaceCheckpointBytes.Max() + limits.NamespaceMountBytes.Max(); 2*share != state.Records {
		t.Errorf("the share of a namespace is %d bytes of %d", share, state.Records)
	}
	if most := state.Records + state.Reserve + limits.CheckpointBytes.Max(); most != state.Size {
		t.Errorf("records, the reserve and one that is written come to %d bytes of %d", most, state.Size)
	}
}
