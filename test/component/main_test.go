package component

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/vaultmount/vaultmount/test/parts"
)

func TestMain(m *testing.M) {
	directory, err := os.MkdirTemp("", "component")
	if err != nil {
		panic(err)
	}
	programDirectory = directory
	status := m.Run()
	if err := os.RemoveAll(directory); err != nil {
		panic(err)
	}
	os.Exit(status)
}

var programDirectory string

var buildProgram = sync.OnceValues(func() (string, error) {
	return parts.Vaultmount(context.Background(), programDirectory, os.Stderr)
})

// program returns the path of the real program, built from the checkout.
func program(t *testing.T) string {
	t.Helper()
	path, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
