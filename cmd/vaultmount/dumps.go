package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidDumps keeps this process's memory, which holds Vault tokens and secrets,
// out of core dumps, and from processes without CAP_SYS_PTRACE. Render workers do
// the same for themselves: a new program starts with what is usual.
func forbidDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	// A core_pattern with a pipe does not care for the limit, but for this.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid memory dumps: %w", err)
	}
	return nil
}
