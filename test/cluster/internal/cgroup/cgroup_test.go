package cgroup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHierarchiesOfMountinfo(t *testing.T) {
	const mountinfo = `30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
34 30 0:29 / /elsewhere/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct
`
	want := []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/cpu,cpuacct"}
	if got := hierarchies(mountinfo); !slices.Equal(got, want) {
		t.Fatalf("hierarchies %q; want %q", got, want)
	}
}

func TestLegacyGroupInheritsCPUSet(t *testing.T) {
	cpuset, memory := t.TempDir(), t.TempDir()
	write(t, filepath.Join(cpuset, "cpuset.cpus"), "0-1\n")
	write(t, filepath.Join(cpuset, "cpuset.mems"), "0\n")
	require.NoError(t, legacy([]string{cpuset, memory}, "lab").Create())
	if got := read(t, filepath.Join(cpuset, "lab", "cpuset.cpus")); got != "0-1\n" {
		t.Errorf("cpuset.cpus is %q", got)
	}
	if _, err := os.Stat(filepath.Join(memory, "lab")); err != nil {
		t.Error(err)
	}
}

func TestUnifiedEnablesOnlyWhatIsThereAndMissing(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "cgroup.controllers"), "cpu rdma pids\n")
	write(t, filepath.Join(dir, "cgroup.subtree_control"), "cpu\n")
	require.NoError(t, enableControllers(dir))
	if got := read(t, filepath.Join(dir, "cgroup.subtree_control")); got != "+pids" {
		t.Errorf("subtree_control was written %q; want +pids", got)
	}
}

func TestRemoveTakesTheWholeTree(t *testing.T) {
	root := t.TempDir()
	group := legacy([]string{root}, "lab")
	require.NoError(t, os.MkdirAll(filepath.Join(root, "lab", "kubepods", "pod1"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(root, "other"), 0o755))
	for range 2 { // the second time there is nothing to remove
		require.NoError(t, group.Remove(t.Context()))
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "other" {
		t.Fatalf("left %v, %v; want only other", entries, err)
	}
}

func TestRemoveWaitsForTheLastProcess(t *testing.T) {
	group, err := New("vaultmount-test-busy")
	require.NoError(t, err)
	require.NoError(t, group.Create())
	member := exec.Command("sleep", "60")
	require.NoError(t, member.Start())
	write(t, filepath.Join(group.dirs[0], "cgroup.procs"), strconv.Itoa(member.Process.Pid))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := group.Remove(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("remove of a busy group gives %v; want the context's error", err)
	}
	require.NoError(t, member.Process.Kill())
	_ = member.Wait() // tells what killed it
	if err := group.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}
