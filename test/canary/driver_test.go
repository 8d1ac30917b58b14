package canary

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// recorded collects what a check says, instead of failing.
type recorded struct {
	testing.TB
	lines []string
}

func (s *recorded) Helper() {}

func (s *recorded) Errorf(_ string, arguments ...any) {
	for _, argument := range arguments {
		if text, ok := argument.(string); ok {
			s.lines = append(s.lines, text)
		}
	}
}

func (s *recorded) Error(arguments ...any) { s.Errorf("", arguments...) }

// Each place is looked at: a driver that shows its secret in all of them is found
// out in each.
func TestRequireNoneOfLooksEverywhere(t *testing.T) {
	t.Parallel()
	shows := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("s3cr3t-value")) })
	health := httptest.NewServer(shows)
	defer health.Close()
	root := t.TempDir()
	// Paths of sockets are short, t.TempDir's are not.
	short, err := os.MkdirTemp("", "canary")
	require.NoError(t, err)
	defer os.RemoveAll(short)
	socket := filepath.Join(short, "s")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	status := &httptest.Server{Listener: listener, Config: &http.Server{Handler: shows}}
	status.Start()
	defer status.Close()
	program := filepath.Join(root, "program")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho s3cr3t-value\n"), 0o700))
	found := &recorded{TB: t}
	Canaries{"the password": "s3cr3t-value"}.RequireNoneOf(found, Driver{
		Program: program, PID: os.Getpid(), Log: "s3cr3t-value", Health: health.URL, Socket: socket, Root: root,
	})
	for _, want := range []string{
		"log of the driver", "/metrics", "/healthz", "/readyz", "status socket", "output of volumes", "output of volumes --output=json", program,
		"the driver has no render worker",
	} {
		if !slices.Contains(found.lines, want) {
			t.Errorf("nothing was recorded of %q; of these it was: %q", want, found.lines)
		}
	}
	if !slices.Contains(found.lines, strconv.Itoa(os.Getpid())) && !coreForbidden(t) {
		t.Error("a process that may dump core is not found out")
	}
}

// coreForbidden is true where whoever runs the tests has no core dumps either.
func coreForbidden(t *testing.T) bool {
	t.Helper()
	limits, err := os.ReadFile("/proc/self/limits")
	require.NoError(t, err)
	return noCore.Match(limits)
}
