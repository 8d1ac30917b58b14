// Package rig is what tests of the driver stand on: a Vault with secrets for pods,
// a kubelet's directory with the calls that a kubelet makes, the program as a
// process that can be killed, and the driver in the test's own process, where the
// race detector sees it. All of it goes with the test.
//
// It holds no expectation of its own: what must be true is for the tests to say.
package rig

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/test/parts"
)

// waitTimeout is how long Eventually waits: much longer than anything takes, so that
// only what never happens runs into it.
const waitTimeout = 60 * time.Second

// Eventually asks until the condition holds or the test's waitTimeout is over.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never happened that %s", what)
		case <-tick.C:
		}
	}
}

var build = sync.OnceValues(func() (string, error) {
	return parts.Vaultmount(context.Background(), os.Stderr)
})

// binaryVariable names a program to test in place of the one that the checkout
// builds, such as an earlier version.
const binaryVariable = "VAULTMOUNT_BINARY"

// Program returns the path of the real program, built from the checkout.
func Program(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(binaryVariable); path != "" {
		return path
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// seedVariable repeats a run: a test that draws prints its seed.
const seedVariable = "VAULTMOUNT_SEED"

// NewRandom returns what a test draws from.
func NewRandom(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("$%s: %v", seedVariable, err)
		}
	}
	t.Logf("%s=%d", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}
