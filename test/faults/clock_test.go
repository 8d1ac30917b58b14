package faults

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// The node's clock is set by an hour while no driver runs: the next one renews the
// token in time, logs in for no other, and reads nothing before it is due.
func TestClockIsSetBetweenTwoProcesses(t *testing.T) {
	for name, by := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vault := rig.StartVault(t)
			// A token that is renewed within seconds, and ends if it is not.
			vault.SetTokenTTL(t, 15*time.Second)
			n := startNode(t, vault, vault.Server.Address)
			vault.SetPassword(t, password(1))
			request := n.request(t, "clock", generations())
			n.MustPublish(t, request)
			n.Process.Kill(t)
			vault.SetPassword(t, password(2))
			accessors := vault.Accessors(t)
			if len(accessors) != 1 {
				t.Fatalf("Vault knows the tokens %q", accessors)
			}
			before := renewedAt(t, vault, accessors[0])
			n.setClock(t, by)
			n.Again(t)
			rig.Eventually(t, "the token is renewed", func() bool { return renewedAt(t, vault, accessors[0]) > before })
			lost := 0
			if seen, err := readGeneration(request.GetTargetPath()); err != nil || seen != 1 || vault.PodTokens(t) != 1 {
				t.Errorf("the files hold generation %d, %v; %d tokens are there", seen, err, vault.PodTokens(t))
				lost = 1
			}
			tally.Record(t, "clock set by an hour between two processes", 1, lost)
			n.MustUnpublish(t, request)
			n.requireClean(t)
		})
	}
}

// renewedAt is the second in which Vault renewed a token last, 0 if it never did.
func renewedAt(t *testing.T, vault *rig.Vault, accessor string) int64 {
	t.Helper()
	secret, err := vault.Root.Auth().Token().LookupAccessorWithContext(t.Context(), accessor)
	if err != nil {
		t.Fatalf("the token has ended: %v", err)
	}
	number, ok := secret.Data["last_renewal_time"].(json.Number)
	if !ok {
		return 0
	}
	seconds, err := number.Int64()
	require.NoError(t, err)
	return seconds
}

// setClock makes the state as if the clock had been set since it was saved. That of
// the machine is not the test's to set, so it is the other way around: what the
// records hold is what a clock would have shown that was off.
func (n *node) setClock(t *testing.T, by time.Duration) {
	t.Helper()
	for _, path := range n.Records(t) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		parts := bytes.SplitN(text, []byte("\n"), 2) // of a volume's record, the driver's and the provider's
		for i, part := range parts {
			decoder := json.NewDecoder(bytes.NewReader(part))
			decoder.UseNumber()
			var record any
			require.NoError(t, decoder.Decode(&record))
			parts[i], err = json.Marshal(moved(record, -by))
			require.NoError(t, err)
		}
		require.NoError(t, os.WriteFile(path, bytes.Join(parts, []byte("\n")), 0o600))
	}
}

// moved is a record with all its times moved, but for those that are zero.
func moved(part any, by time.Duration) any {
	switch part := part.(type) {
	case map[string]any:
		for key, value := range part {
			part[key] = moved(value, by)
		}
	case []any:
		for i, value := range part {
			part[i] = moved(value, by)
		}
	case string:
		if at, err := time.Parse(time.RFC3339Nano, part); err == nil && !at.IsZero() {
			return at.Add(by).Format(time.RFC3339Nano)
		}
	}
	return part
}
