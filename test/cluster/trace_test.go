package cluster_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster"
	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
)

// traces are what the cluster of one run directory has on the machine. Other
// tests may run at the same time: what is theirs does not count.
type traces struct {
	runDir       string
	pidNamespace string   // empty if the test never saw a cluster that was up
	interfaces   []string // before
	mounts       []string // before
}

func look(t *testing.T, runDir string) *traces {
	t.Helper()
	return &traces{runDir: runDir, interfaces: interfaces(t), mounts: mounts(t, runDir)}
}

// see notes the cluster's PID namespace while there is one.
func (tr *traces) see(t *testing.T) {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", holderPID(t, tr.runDir)))
	require.NoError(t, err)
	tr.pidNamespace = namespace
}

// compare fails the test for everything the cluster has left.
func (tr *traces) compare(t *testing.T) {
	t.Helper()
	for _, process := range tr.processes(t) {
		t.Errorf("left behind: process %s", process)
	}
	for _, group := range cgroups(t, cluster.CgroupName(tr.runDir)) {
		t.Errorf("left behind: control group %s", group)
	}
	for _, one := range interfaces(t) {
		if !slices.Contains(tr.interfaces, one) {
			t.Errorf("left behind: network interface %s", one)
		}
	}
	for _, one := range mounts(t, tr.runDir) {
		if !slices.Contains(tr.mounts, one) {
			t.Errorf("left behind: mount %s", one)
		}
	}
}

// processes are those in the cluster's PID namespace, and its holder.
func (tr *traces) processes(t *testing.T) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	return slices.DeleteFunc(dirs, func(dir string) bool {
		namespace, _ := os.Readlink(filepath.Join(dir, "ns/pid")) // it may have ended just now
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		inside := tr.pidNamespace != "" && namespace == tr.pidNamespace
		return !inside && string(cmdline) != "vaultmount-holder\x00"+tr.runDir+"\x00"
	})
}

func cgroups(t *testing.T, name string) []string {
	t.Helper()
	unified, err := filepath.Glob("/sys/fs/cgroup/" + name)
	require.NoError(t, err)
	legacy, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	require.NoError(t, err)
	return append(unified, legacy...)
}

func interfaces(t *testing.T) []string {
	t.Helper()
	found, err := net.Interfaces()
	require.NoError(t, err)
	var names []string
	for _, one := range found {
		names = append(names, one.Name)
	}
	return names
}

// mounts are the lines of the host's mountinfo for what the cluster mounts over
// in its own namespace, and for the run directory.
func mounts(t *testing.T, runDir string) []string {
	t.Helper()
	content, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	var found []string
	for line := range strings.Lines(string(content)) {
		point := strings.Fields(line)[4]
		if slices.Contains([]string{"/proc", "/run", "/var/lib", "/var/log"}, point) || strings.HasPrefix(point, "/proc/sys/") || strings.Contains(line, runDir) {
			found = append(found, line)
		}
	}
	return found
}

func buildParts(t *testing.T, source parts.Source) *parts.Parts {
	t.Helper()
	p, err := parts.Build(t.Context(), source, os.Stderr)
	require.NoError(t, err)
	return p
}

// newRunDir is short: a socket's address has little space for names of tests.
func newRunDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cluster-*")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "run")
}

func busyboxArchive(t *testing.T, p *parts.Parts) string {
	t.Helper()
	busybox, err := image.Busybox(t.Context(), p.Runtime.Busybox)
	require.NoError(t, err)
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	require.NoError(t, busybox.Save(archive))
	return archive
}

func kubectl(t *testing.T, p *parts.Parts, c *cluster.Cluster, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.Kubectl(), args...)
	cmd.Env = append(os.Environ(), c.Environment()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func holderPID(t *testing.T, runDir string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(runDir, "holder.json"))
	require.NoError(t, err)
	var state struct{ Holder struct{ PID int } }
	require.NoError(t, json.Unmarshal(content, &state))
	return state.Holder.PID
}

// reapOrphans makes the holder of a killed caller this process's child: then
// its end can be waited for, and no zombie depends on the machine's process 1.
func reapOrphans(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		ended, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		require.NoError(t, err)
		if ended == pid {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the holder outlives its caller")
}
