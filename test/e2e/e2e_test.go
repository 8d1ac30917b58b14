// Package e2e tests what a user sees of vaultmount in a real cluster: the pods,
// their files, their events, and the driver's log.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/testbed"
)

const connection = "postgresql://db-readonly-username:db-secret-password@postgres:5432/wizard"

// bed is the one testbed that all tests of the package share; TestMain makes it.
var bed *testbed.Testbed

func TestMain(m *testing.M) {
	cluster.Hold()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	directory, err := os.MkdirTemp("", "vaultmount-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(directory)
	bed, err = testbed.Up(ctx, parts.Current, directory+"/run", os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	stopping, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := bed.Down(stopping); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	printed, err := bed.Kubectl(t.Context(), arguments...)
	require.NoError(t, err)
	return printed
}

// apply makes what a file of testdata describes, and removes it after the test.
func apply(t *testing.T, file string) {
	t.Helper()
	path := "test/e2e/testdata/" + file
	kubectl(t, "apply", "-f", path)
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "-f", path, "--timeout=60s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

func awaitReady(t *testing.T, namespace, pod string) {
	t.Helper()
	if _, err := bed.Kubectl(t.Context(), "wait", "--for=condition=Ready", "pod/"+pod, "--namespace="+namespace, "--timeout=90s"); err != nil {
		t.Fatalf("%v\n%s", err, kubectl(t, "describe", "pod", pod, "--namespace="+namespace))
	}
}

func readFile(t *testing.T, namespace, pod, path string) string {
	t.Helper()
	return kubectl(t, "exec", pod, "--namespace="+namespace, "--", "cat", path)
}

func vault(t *testing.T, script string) string {
	t.Helper()
	printed, err := bed.Vault(t.Context(), "set -eu\n"+script)
	require.NoError(t, err)
	return printed
}

func driverLogs(t *testing.T) string {
	t.Helper()
	return kubectl(t, "logs", "daemonset/vaultmount", "--namespace=vaultmount", "--tail=-1")
}

// eventually asks until the condition holds or a minute is over.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("it never happened that %s", what)
		case <-tick.C:
		}
	}
}

func contains(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q is not in:\n%s", want, text)
	}
}
