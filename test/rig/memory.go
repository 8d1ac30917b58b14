package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Memory is a control group that bounds the memory of a program and of its children,
// as a container's does. It uses the version of cgroups that the machine has, and
// goes with the test.
type Memory struct {
	// Limit is in bytes.
	Limit     int64
	directory string
	unified   bool
}

// NewMemory makes the group.
func NewMemory(t testing.TB, limit int64) *Memory {
	t.Helper()
	const root = "/sys/fs/cgroup"
	var stat unix.Statfs_t
	if err := unix.Statfs(root, &stat); err != nil {
		t.Fatal(err)
	}
	m := &Memory{Limit: limit, unified: stat.Type == unix.CGROUP2_SUPER_MAGIC}
	parent, file := filepath.Join(root, "memory"), "memory.limit_in_bytes"
	if m.unified {
		parent, file = root, "memory.max"
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			t.Fatalf("enable the memory controller: %v", err)
		}
	}
	var err error
	if m.directory, err = os.MkdirTemp(parent, "vaultmount-test-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.remove(t) })
	if err := os.WriteFile(filepath.Join(m.directory, file), strconv.AppendInt(nil, limit, 10), 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// remove tries again while the group is busy: a process that was killed leaves it shortly
// after its parent has collected it.
func (m *Memory) remove(t testing.TB) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	err := unix.Rmdir(m.directory)
	for end := time.Now().Add(waitTimeout); err == unix.EBUSY && time.Now().Before(end); err = unix.Rmdir(m.directory) {
		<-tick.C
	}
	if err != nil {
		t.Errorf("remove the control group: %v", err)
	}
}

// StartDriver is StartProcess in the group.
func (m *Memory) StartDriver(t testing.TB, kubelet *Kubelet, address string, arguments ...string) *Process {
	t.Helper()
	return run(t, newLog(t, "driver"), m.enter(driverCommand(Program(t), kubelet, address, arguments)))
}

// StartWebhook is the function StartWebhook in the group.
func (m *Memory) StartWebhook(t testing.TB, arguments ...string) *Webhook {
	t.Helper()
	return startWebhook(t, m.enter, arguments)
}

// enter has a shell enter the group before it becomes the program, so that the group
// counts all that the program ever takes.
func (m *Memory) enter(command []string) []string {
	return append([]string{"/bin/sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(m.directory, "cgroup.procs")}, command...)
}

// Used is how many bytes the group takes: memory of its processes, files in tmpfs,
// and what the kernel keeps for both.
func (m *Memory) Used(t testing.TB) int64 {
	t.Helper()
	return m.number(t, "memory.usage_in_bytes", "memory.current")
}

// Peak is the largest number of bytes that the group ever took.
func (m *Memory) Peak(t testing.TB) int64 {
	t.Helper()
	return m.number(t, "memory.max_usage_in_bytes", "memory.peak")
}

func (m *Memory) number(t testing.TB, legacy, unified string) int64 {
	t.Helper()
	number, err := strconv.ParseInt(strings.TrimSpace(m.read(t, legacy, unified)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// OOMKills is how many processes of the group the kernel has killed because the
// memory did not suffice.
func (m *Memory) OOMKills(t testing.TB) int {
	t.Helper()
	for line := range strings.Lines(m.read(t, "memory.oom_control", "memory.events")) {
		kills := 0
		if _, err := fmt.Sscanf(line, "oom_kill %d", &kills); err == nil {
			return kills
		}
	}
	t.Fatal("the control group does not count what the kernel kills")
	return 0
}

func (m *Memory) read(t testing.TB, legacy, unified string) string {
	t.Helper()
	name := legacy
	if m.unified {
		name = unified
	}
	content, err := os.ReadFile(filepath.Join(m.directory, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
