package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// unified is the group in version 2's only hierarchy.
func unified(root, name string) Group {
	return Group{
		dirs: []string{filepath.Join(root, name)},
		prepare: func(dir string) error {
			return errors.Join(enableControllers(root), enableControllers(dir))
		},
	}
}

// enableControllers hands the controllers that the kubelet requires of its root
// group down to the groups below dir. Those at the root stay enabled when the
// cluster is gone: another group may have come to use them.
func enableControllers(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("list controllers: %w", err)
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	enabled, err := os.ReadFile(control)
	if err != nil {
		return fmt.Errorf("list enabled controllers: %w", err)
	}
	for _, name := range []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} {
		if !slices.Contains(strings.Fields(string(available)), name) || slices.Contains(strings.Fields(string(enabled)), name) {
			continue
		}
		err := os.WriteFile(control, []byte("+"+name), 0o644)
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("enable controller %s: %w: %s holds processes itself, as in a container without a cgroup of its own", name, err, dir)
		}
		if err != nil {
			return fmt.Errorf("enable controller %s: %w", name, err)
		}
	}
	return nil
}
