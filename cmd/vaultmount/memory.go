package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// limitMemory has the garbage collector work harder before the memory of the container
// runs out: by default the heap may grow to twice of what is in use. A tenth is left
// for what is not Go's. $GOMEMLIMIT comes first.
func limitMemory(logger klog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit, err := cgroupMemory("/proc/self/cgroup", "/sys/fs/cgroup")
	if err != nil {
		logger.Error(err, "Memory limit of the container not found")
		return
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// limitDriverMemory does the same for the driver, whose container has the volumes and
// the processes that run templates as well. What volumes keep on the heap counts as
// capacity, so the heap needs no more than that, the program, and Vault's responses
// while they are read: the chart adds the same. $GOMEMLIMIT comes first.
func limitDriverMemory(capacity int64) {
	const program = 64 << 20
	if os.Getenv("GOMEMLIMIT") == "" && capacity > 0 {
		debug.SetMemoryLimit(capacity + program + int64(limits.NodeResponseBytes.Max()))
	}
}

// cgroupMemory returns the memory limit of the process in bytes, or 0 if there is
// none. It knows both versions of cgroups. In a container the files are those of the
// root, whatever path the process has.
func cgroupMemory(self, root string) (int64, error) {
	groups, err := os.ReadFile(self)
	if err != nil {
		return 0, fmt.Errorf("read the control groups: %w", err)
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "" && parts[1] != "memory" {
			continue
		}
		file := "memory.max"
		directory := root
		if parts[1] == "memory" {
			directory, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		}
		for _, path := range []string{filepath.Join(directory, parts[2], file), filepath.Join(directory, file)} {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // not this version, or a path outside of the container
			}
			limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err != nil {
				return 0, nil // "max"
			}
			return limit, nil
		}
	}
	return 0, nil
}
