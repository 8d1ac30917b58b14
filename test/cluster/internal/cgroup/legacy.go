package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// legacy is the group in version 1's hierarchies, name=systemd among them: runc
// makes a container's group in each that is mounted.
func legacy(roots []string, name string) Group {
	g := Group{prepare: inheritCPUSet}
	for _, root := range roots {
		g.dirs = append(g.dirs, filepath.Join(root, name))
	}
	return g
}

// hierarchies are the mount points of version 1 in a mountinfo file. Symbolic
// links such as cpu -> cpu,cpuacct are not mounts, so none is listed twice.
func hierarchies(mountinfo string) []string {
	var roots []string
	for line := range strings.Lines(mountinfo) {
		mount, rest, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 5 || !strings.HasPrefix(rest, "cgroup ") {
			continue
		}
		if strings.HasPrefix(fields[4], Root+"/") {
			roots = append(roots, fields[4])
		}
	}
	return roots
}

// inheritCPUSet fills the two settings a new cpuset group lacks: the kernel
// lets no process into a group whose processors or memory nodes are empty.
func inheritCPUSet(dir string) error {
	for _, setting := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(dir), setting))
		if os.IsNotExist(err) {
			return nil // not the cpuset hierarchy
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, setting), value, 0o644); err != nil {
			return fmt.Errorf("set %s: %w", setting, err)
		}
	}
	return nil
}
