package cluster_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
)

const kubeletAddress = cluster.NodeIP + ":10250"

func TestMain(m *testing.M) {
	cluster.Hold()
	if runDir := os.Getenv(callerVariable); runDir != "" {
		os.Exit(call(runDir))
	}
	os.Exit(m.Run())
}

func TestClusterRunsAPodAndLeavesNothing(t *testing.T) {
	for _, source := range []parts.Source{parts.Packaged, parts.Current} {
		t.Run(string(source), func(t *testing.T) { testCluster(t, buildParts(t, source)) })
	}
}

func testCluster(t *testing.T, p *parts.Parts) {
	runDir := newRunDir(t)
	left := look(t, runDir)
	c, err := cluster.Up(t.Context(), cluster.Options{Parts: p, RunDir: runDir, Forward: []string{kubeletAddress}, Progress: t.Output()})
	require.NoError(t, err)
	left.see(t)
	t.Cleanup(func() { _ = cluster.Down(context.Background(), runDir) }) // for a test that fails half-way

	require.NoError(t, c.ImportImage(t.Context(), busyboxArchive(t, p)))
	t.Run("second Up is refused", func(t *testing.T) {
		if _, err := cluster.Up(t.Context(), cluster.Options{Parts: p, RunDir: runDir}); err == nil || !strings.Contains(err.Error(), "lab down") {
			t.Errorf("up gives %v; want to be told how to end the cluster", err)
		}
	})
	t.Run("pod completes", func(t *testing.T) {
		kubectl(t, p, c, "run", "hello", "--image="+image.BusyboxName, "--restart=Never", "--", "-c", "echo hello from $(hostname)")
		kubectl(t, p, c, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/hello", "--timeout=30s")
		if log := kubectl(t, p, c, "logs", "hello"); log != "hello from hello\n" {
			t.Errorf("pod logged %q", log)
		}
	})
	if p.Runtime.Crun != "" {
		t.Run("crun is a runtime class", func(t *testing.T) { testCrun(t, p, c) })
	}
	t.Run("command runs inside", func(t *testing.T) { testRun(t, c) })
	t.Run("kubelet restarts", func(t *testing.T) {
		require.NoError(t, c.RestartKubelet(t.Context()))
		kubectl(t, p, c, "run", "again", "--image="+image.BusyboxName, "--restart=Never", "--", "-c", "true")
		kubectl(t, p, c, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/again", "--timeout=60s")
	})
	t.Run("forwarded address answers", func(t *testing.T) { testForwarded(t, c) })
	t.Run("broken image is refused", func(t *testing.T) {
		if err := c.ImportImage(t.Context(), "/dev/null"); err == nil || !strings.Contains(err.Error(), "ctr: ") {
			t.Errorf("import gives %v; want what ctr says", err)
		}
	})

	// A pod that runs on is to be ended with the rest.
	kubectl(t, p, c, "run", "sleeper", "--image="+image.BusyboxName, "--restart=Never", "--", "-c", "sleep 3600")
	kubectl(t, p, c, "wait", "--for=condition=Ready", "pod/sleeper", "--timeout=30s")
	require.NoError(t, c.Down(t.Context()))
	if _, err := os.Stat(runDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("run directory is still there: %v", err)
	}
	left.compare(t)
	if err := cluster.Down(t.Context(), runDir); err != nil {
		t.Errorf("down without a cluster: %v", err)
	}
}

// testCrun runs a pod of the class crun, which keeps a file of its own for each
// container where runc keeps another.
func testCrun(t *testing.T, p *parts.Parts, c *cluster.Cluster) {
	class := filepath.Join(t.TempDir(), "crun.yaml")
	require.NoError(t, os.WriteFile(class, []byte("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: crun}\nhandler: crun\n"), 0o644))
	kubectl(t, p, c, "apply", "-f", class)
	kubectl(t, p, c, "run", "crun", "--image="+image.BusyboxName, "--restart=Never", `--overrides={"spec": {"runtimeClassName": "crun"}}`, "--", "-c", "sleep 3600")
	kubectl(t, p, c, "wait", "--for=condition=Ready", "pod/crun", "--timeout=30s")
	id := strings.TrimPrefix(kubectl(t, p, c, "get", "pod", "crun", "-o", "jsonpath={.status.containerStatuses[0].containerID}"), "containerd://")
	if err := c.Run(t.Context(), cluster.Command{Args: []string{"test", "-e", "/run/containerd/runc/k8s.io/" + id + "/status"}}); err != nil {
		t.Errorf("the container is not one of crun's: %v", err)
	}
	if got := kubectl(t, p, c, "exec", "crun", "--", "hostname"); got != "crun\n" {
		t.Errorf("a command in it prints %q", got)
	}
}

// testForwarded talks TLS to the kubelet: only the whole way there and back
// makes a handshake.
func testForwarded(t *testing.T, c *cluster.Cluster) {
	conn, err := tls.Dial("tcp", c.Forwarded(kubeletAddress), &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	defer conn.Close()
	if name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "system:node:"+cluster.Node {
		t.Errorf("%s answers", name)
	}
}

func testRun(t *testing.T, c *cluster.Cluster) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	err = c.Run(t.Context(), cluster.Command{Args: []string{"sh", "-c", "hostname; exit 3"}, Stdout: write})
	write.Close()
	var exit *cluster.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("run gives %v; want exit status 3", err)
	}
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || line != cluster.Node+"\n" {
		t.Errorf("host name inside is %q, %v", line, err)
	}
}
