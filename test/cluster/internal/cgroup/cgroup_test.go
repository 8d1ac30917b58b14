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
	if err := legacy([]string{cpuset, memory}, "lab").Create(); err != nil {
		t.Fatal(err)
	}
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
	if err := enableControllers(dir); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "cgroup.subtree_control")); got != "+pids" {
		t.Errorf("subtree_control was written %q; want +pids", got)
	}
}

func TestRemoveTakesTheWholeTree(t *testing.T) {
	root := t.TempDir()
	group := legacy([]string{root}, "lab")
	if err := os.MkdirAll(filepath.Join(root, "lab", "kubepods", "pod1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to remove
		if err := group.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 1 || entries[0].Name() != "other" {
		t.Fatalf("left %v, %v; want only other", entries, err)
	}
}

func TestRemoveWaitsForTheLastProcess(t *testing.T) {
	group, err := New("vaultmount-test-busy")
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Create(); err != nil {
		t.Fatal(err)
	}
	member := exec.Command("sleep", "60")
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(group.dirs[0], "cgroup.procs"), strconv.Itoa(member.Process.Pid))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := group.Remove(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("remove of a busy group gives %v; want the context's error", err)
	}
	if err := member.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = member.Wait() // tells what killed it
	if err := group.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
