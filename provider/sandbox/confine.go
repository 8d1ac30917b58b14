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
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// confinement is what a worker takes from its own process, in this order, since nobody can
// from outside. There is no way back.
func confinement() []func() error {
	return []func() error{verifyStart, limitAddresses, limitResources, filterCalls}
}

// verifyStart refuses to run templates in a process that startWorker did not make.
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

// limitAddresses bounds what the worker can allocate. The parent knows how much that is: a
// worker does not see how much its own runtime has reserved.
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
	return setLimit("memory", unix.RLIMIT_AS, limit)
}

func setLimit(name string, resource int, value uint64) error {
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
	}
	return nil
}

func limitResources() error {
	log.SetOutput(io.Discard) // consul-template's
	runtime.GOMAXPROCS(1)
	debug.SetMaxStack(stackLimit)
	debug.SetMemoryLimit(memoryLimit)
	// Nobody can trace the process, or read its memory through /proc.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid memory dumps: %w", err)
	}
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"open files", unix.RLIMIT_NOFILE, 8}, // three pipes, and two of Go's runtime
		{"threads", unix.RLIMIT_NPROC, 128},   // of all processes with this user
		{"file size", unix.RLIMIT_FSIZE, 0},
		{"core dumps", unix.RLIMIT_CORE, 0},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		// For a worker that spins while nobody monitors it.
		{"CPU time", unix.RLIMIT_CPU, 600},
	} {
		if err := setLimit(l.name, l.resource, l.value); err != nil {
			return err
		}
	}
	return nil
}

// allowedCalls are the system calls that Go's runtime needs to allocate memory, run threads
// and read the time, and to read and write what is open. All others fail with EPERM.
func allowedCalls() []uint32 {
	return []uint32{
		unix.SYS_READ, unix.SYS_WRITE,
		unix.SYS_MUNMAP, unix.SYS_MADVISE,
		unix.SYS_FUTEX, unix.SYS_SCHED_YIELD, unix.SYS_NANOSLEEP, unix.SYS_RESTART_SYSCALL,
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
		unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_GETRANDOM,
		unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	}
}

// condition is about the lower 32 bits of an argument: no flag has a higher one.
type condition struct {
	argument uint32
	test     bpf.JumpTest
	value    uint32
}

// conditionalCalls are allowed if all conditions hold.
func conditionalCalls(pid int) map[uint32][]condition {
	return map[uint32][]condition{
		// Threads of this process, never a process.
		unix.SYS_CLONE:  {{0, bpf.JumpBitsSet, unix.CLONE_THREAD}},
		unix.SYS_TGKILL: {{0, bpf.JumpEqual, uint32(pid)}},
		// Private memory, and never code.
		unix.SYS_MMAP: {
			{2, bpf.JumpBitsNotSet, unix.PROT_EXEC},
			{3, bpf.JumpBitsSet, unix.MAP_ANONYMOUS},
			{3, bpf.JumpBitsSet, unix.MAP_PRIVATE},
			{3, bpf.JumpBitsNotSet, unix.MAP_SHARED},
		},
	}
}

// Where struct seccomp_data has its fields. Both architectures have the lower half of an
// argument first.
const (
	numberOffset   = 0
	archOffset     = 4
	argumentOffset = 16
	argumentSize   = 8
	wordSize       = 4
)

// program is the filter. Nothing falls through from one call to the next, so that the
// number stays what is compared.
func program(arch uint32, pid int) []bpf.Instruction {
	deny := bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	allow := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	instructions := []bpf.Instruction{
		// The same number is another call in the kernel's other interfaces.
		bpf.LoadAbsolute{Off: archOffset, Size: wordSize},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: numberOffset, Size: wordSize},
	}
	for _, number := range allowedCalls() {
		instructions = append(instructions, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: 1}, allow)
	}
	for number, conditions := range conditionalCalls(pid) {
		var block []bpf.Instruction
		for _, c := range conditions {
			block = append(block,
				bpf.LoadAbsolute{Off: argumentOffset + argumentSize*c.argument, Size: wordSize},
				bpf.JumpIf{Cond: c.test, Val: c.value, SkipTrue: 1},
				deny)
		}
		block = append(block, allow)
		instructions = append(instructions, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number, SkipTrue: uint8(len(block))})
		instructions = append(instructions, block...)
	}
	return append(instructions, deny)
}

// filterCalls puts the filter on all threads. Each thread to come inherits it.
func filterCalls() error {
	arch, ok := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("filter system calls: not known how on %s", runtime.GOARCH)
	}
	raw, err := bpf.Assemble(program(arch, os.Getpid()))
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, instruction := range raw {
		code[i] = unix.SockFilter{Code: instruction.Op, Jt: instruction.Jt, Jf: instruction.Jf, K: instruction.K}
	}
	filter := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}
