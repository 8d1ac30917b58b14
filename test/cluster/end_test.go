package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/parts"
)

// callerVariable makes the test binary a caller of Up that a test can kill: it
// holds the run directory.
const callerVariable = "VAULTMOUNT_TEST_CALLER"

// call brings a cluster up, says so, and waits to be killed.
func call(runDir string) int {
	ctx := context.Background()
	p, err := parts.Build(ctx, parts.Current, os.Stderr)
	if err == nil {
		_, err = cluster.Up(ctx, cluster.Options{Parts: p, RunDir: runDir, Progress: os.Stdout})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	select {}
}

// TestCallerKilled: whatever ends the caller of Up ends the cluster, at each
// stage on the way up and when it is up.
func TestCallerKilled(t *testing.T) {
	buildParts(t, parts.Current)
	reapOrphans(t)
	for _, stage := range []string{"images", "ready"} {
		t.Run("at "+stage, func(t *testing.T) {
			runDir := newRunDir(t)
			left := look(t, runDir)
			killCaller(t, runDir, stage, left.see)
			awaitEnd(t, holderPID(t, runDir))
			left.compare(t)
			if err := cluster.Down(t.Context(), runDir); err != nil {
				t.Error(err)
			}
		})
	}
}

func killCaller(t *testing.T, runDir, stage string, see func(*testing.T)) {
	t.Helper()
	caller := exec.Command("/proc/self/exe")
	caller.Env = append(os.Environ(), callerVariable+"="+runDir)
	caller.Stderr = t.Output()
	stdout, err := caller.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, caller.Start())
	defer func() {
		_ = caller.Process.Kill()
		_ = caller.Wait() // tells what killed it
	}()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		t.Log(lines.Text())
		if strings.HasSuffix(lines.Text(), stage) {
			see(t)
			return
		}
	}
	t.Fatalf("caller ended before it reached %q", stage)
}

func TestHolderKilled(t *testing.T) {
	p := buildParts(t, parts.Current)
	runDir := newRunDir(t)
	left := look(t, runDir)
	c, err := cluster.Up(t.Context(), cluster.Options{Parts: p, RunDir: runDir})
	require.NoError(t, err)
	left.see(t)
	require.NoError(t, unix.Kill(holderPID(t, runDir), unix.SIGKILL))
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the cluster is not known to have ended")
	}
	require.NoError(t, c.Down(t.Context()))
	left.compare(t)
}

func TestFailureShowsTheLog(t *testing.T) {
	p := *buildParts(t, parts.Current)
	runDir := newRunDir(t)
	left := look(t, runDir)
	p.Runtime.Etcd = filepath.Join(t.TempDir(), "etcd")
	require.NoError(t, os.WriteFile(p.Runtime.Etcd, []byte("#!/bin/sh\necho no such luck\nexit 7\n"), 0o755))
	_, err := cluster.Up(t.Context(), cluster.Options{Parts: &p, RunDir: runDir})
	for _, want := range []string{"etcd ended with exit status 7", "no such luck"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("up gives %v; want %q in it", err, want)
		}
	}
	left.compare(t)
}

func TestCanceledUpLeavesNothing(t *testing.T) {
	p := buildParts(t, parts.Current)
	runDir := newRunDir(t)
	left := look(t, runDir)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := cluster.Up(ctx, cluster.Options{Parts: p, RunDir: runDir, Progress: cancelAt{"containerd", cancel}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("up gives %v; want the context's error", err)
	}
	left.compare(t)
}

// cancelAt cancels when the stage is reported.
type cancelAt struct {
	stage  string
	cancel context.CancelFunc
}

func (c cancelAt) Write(line []byte) (int, error) {
	if strings.Contains(string(line), c.stage) {
		c.cancel()
	}
	return len(line), nil
}
