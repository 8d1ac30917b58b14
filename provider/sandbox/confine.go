package sandbox

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// confinement is what a worker takes from its own process, in this order, since
// nobody can from outside. There is no way back.
func confinement() []func() error {
	return []func() error{verifyStart, setUpRuntime, limitAddresses, limitResources, forbidDumps, filterCalls}
}

// verifyStart refuses to run templates in a process that Start did not make.
func verifyStart() error {
	noNewPrivileges, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("ask for no_new_privs: %w", err)
	}
	if noNewPrivileges != 1 || os.Getuid() < firstID || os.Getgid() < firstID || os.Getpid() != 1 {
		return errors.New("a render worker is started by vaultmount driver, and not by hand")
	}
	return nil
}

func setUpRuntime() error {
	log.SetOutput(io.Discard) // consul-template's
	runtime.GOMAXPROCS(1)
	debug.SetMaxStack(stackLimit)
	debug.SetMemoryLimit(memoryLimit)
	return nil
}

// forbidDumps keeps others from this process's memory: it cannot be traced, nor
// read through /proc.
func forbidDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid memory dumps: %w", err)
	}
	return nil
}

// limitAddresses bounds what the worker can allocate from now on. The parent knows how
// much that is: a worker does not see how much its own runtime has reserved.
func limitAddresses() error {
	if err := writeFrame(os.Stdout, nil, 0); err != nil {
		return err
	}
	payload, err := readFrame(os.Stdin, messageLimit)
	if err != nil {
		return fmt.Errorf("read the limit of memory: %w", err)
	}
	limit, err := strconv.ParseUint(string(payload), 10, 64)
	if err != nil {
		return fmt.Errorf("read the limit of memory: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("limit memory: %w", err)
	}
	return nil
}

func limitResources() error {
	limits := []struct {
		name     string
		resource int
		value    uint64
	}{
		{"open files", unix.RLIMIT_NOFILE, 8}, // three pipes, and two of Go's runtime
		{"threads", unix.RLIMIT_NPROC, 128},   // of all processes with this user
		{"file size", unix.RLIMIT_FSIZE, 0},
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		// A worker that spins while nobody watches it: it is replaced unnoticed.
		{"CPU time", unix.RLIMIT_CPU, 600},
	}
	for _, l := range limits {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
	}
	return nil
}
