package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacks are what a template could do that has taken its worker over. Each
// returns nil if it worked.
func attacks() map[string]func() error {
	all := map[string]func() error{}
	for _, group := range []map[string]func() error{fileAttacks(), networkAttacks(), processAttacks(), privilegeAttacks(), memoryAttacks()} {
		for name, attack := range group {
			all[name] = attack
		}
	}
	return all
}

// call makes a system call by its number.
func call(number uintptr, arguments ...uintptr) error {
	var a [6]uintptr
	copy(a[:], arguments)
	if _, _, errno := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func text(s string) uintptr {
	pointer, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	kept = append(kept, pointer)
	return uintptr(unsafe.Pointer(pointer))
}

// kept are strings that the collector must leave until the kernel has seen them.
var kept []*byte

func fileAttacks() map[string]func() error {
	all := map[string]func() error{
		"open with openat2": func() error {
			_, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_RDONLY})
			return err
		},
		"open by handle": func() error {
			_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, make([]byte, 8)), unix.O_RDONLY)
			return err
		},
		"create":            func() error { return os.WriteFile("/x", nil, 0o600) },
		"make a directory":  func() error { return os.Mkdir("/x", 0o700) },
		"remove":            func() error { return unix.Unlink("/x") },
		"list the root":     func() error { _, err := os.ReadDir("/"); return err },
		"stat":              func() error { _, err := os.Stat("/"); return err },
		"read a link":       func() error { _, err := os.Readlink("/proc/self/exe"); return err },
		"working directory": func() error { _, err := unix.Getcwd(make([]byte, 100)); return err },
		"leave the root":    func() error { return os.Chdir("..") },
		"memory file":       func() error { _, err := unix.MemfdCreate("x", 0); return err },
		"inherited files":   readInheritedFiles,
		"duplicate a file":  func() error { _, err := unix.Dup(0); return err },
		"steal a terminal":  func() error { return call(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 1) },
		"environment": func() error {
			if environment := os.Environ(); len(environment) > 0 {
				return nil
			}
			return errors.New("it is empty")
		},
	}
	for _, path := range []string{
		"/etc/shadow", "/etc/passwd", "/etc/hosts", "/proc/self/environ", "/proc/self/mem", "/proc/1/environ", "/proc/1/root/etc/shadow",
		"/var/run/secrets/kubernetes.io/serviceaccount/token", "/var/lib/kubelet", "/sys/kernel", "/dev/null", "/dev/kmsg", "/", ".", "..", "../../../../etc/shadow", programName,
	} {
		all["open "+path] = func() error { _, err := unix.Open(path, unix.O_RDONLY, 0); return err }
	}
	return all
}

// readInheritedFiles looks for open files of the driver.
func readInheritedFiles() error {
	for fd := 3; fd < 1024; fd++ {
		_, err := unix.Read(fd, make([]byte, 1))
		// Those of Go's runtime are an epoll instance, which cannot be read, and an
		// eventfd, which is empty.
		if err == nil || !errors.Is(err, unix.EBADF) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EAGAIN) {
			return nil
		}
	}
	return errors.New("there are none")
}

func networkAttacks() map[string]func() error {
	all := map[string]func() error{
		"socket pair":    func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"io_uring":       func() error { return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&[120]byte{}))) },
		"resolve a name": func() error { return resolve("vault.vault.svc") },
	}
	for name, family := range map[string]int{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6, "unix": unix.AF_UNIX, "netlink": unix.AF_NETLINK, "packet": unix.AF_PACKET, "vsock": unix.AF_VSOCK, "crypto": unix.AF_ALG} {
		all["socket "+name] = func() error { _, err := unix.Socket(family, unix.SOCK_DGRAM, 0); return err }
	}
	return all
}

func processAttacks() map[string]func() error {
	remote := &unix.RemoteIovec{Len: 1}
	return map[string]func() error{
		"signal all":        func() error { return unix.Kill(-1, 0) },
		"signal another":    signalAnother,
		"signal itself":     func() error { return unix.Kill(1, 0) },
		"signal a thread":   func() error { return unix.Tgkill(2, 2, 0) },
		"signal with tkill": func() error { return call(unix.SYS_TKILL, 2, 0) },
		"queue a signal":    func() error { return call(unix.SYS_RT_SIGQUEUEINFO, 2, 0, uintptr(unsafe.Pointer(&[128]byte{}))) },
		"open a process":    func() error { _, err := unix.PidfdOpen(1, 0); return err },
		"trace": func() error {
			return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1)
		},
		"read another's memory": func() error {
			_, err := unix.ProcessVMReadv(1, []unix.Iovec{{Base: &make([]byte, 1)[0], Len: 1}}, []unix.RemoteIovec{*remote}, 0)
			return err
		},
		"fork":             func() error { return fork(uintptr(unix.SIGCHLD)) },
		"fork as a number": func() error { return fork(unix.SYS_MMAP) },
		"fork with clone3": func() error {
			return call(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&[11]uint64{4: uint64(unix.SIGCHLD)})), 88)
		},
		"run itself": func() error { return unix.Exec("/proc/self/exe", []string{"x"}, nil) },
		"run a file": func() error { return unix.Exec(programName, []string{"x"}, nil) },
		"run a descriptor": func() error {
			return call(unix.SYS_EXECVEAT, 0, text(""), 0, 0, unix.AT_EMPTY_PATH)
		},
	}
}

// signalAnother tries the numbers that processes have and threads of a worker have
// not: these start at 1 in its namespace.
func signalAnother() error {
	for pid := 1000; pid < 1<<16; pid++ {
		if unix.Kill(pid, 0) == nil {
			return nil
		}
	}
	return errors.New("there is no other")
}

// fork makes the system call that makes processes. Were it allowed, the copy would
// end at once.
func fork(flags uintptr) error {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		unix.Exit(0)
	}
	return nil
}

func privilegeAttacks() map[string]func() error {
	return map[string]func() error{
		"become root":         func() error { return call(unix.SYS_SETUID, 0) },
		"become root again":   func() error { return call(unix.SYS_SETRESUID, 0, 0, 0) },
		"join root's group":   func() error { return call(unix.SYS_SETGID, 0) },
		"join groups":         func() error { return call(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&[1]uint32{0}))) },
		"take capabilities":   takeCapabilities,
		"new user namespace":  func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"new mount namespace": func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		"join a namespace":    func() error { return unix.Setns(0, 0) },
		"mount":               func() error { return unix.Mount("none", "/", "tmpfs", 0, "") },
		"mount by descriptor": func() error { _, err := unix.Fsopen("tmpfs", 0); return err },
		"unmount":             func() error { return unix.Unmount("/", unix.MNT_DETACH) },
		"make the root writable": func() error {
			return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		},
		"change the root":    func() error { return unix.Chroot(".") },
		"pivot":              func() error { return unix.PivotRoot(".", ".") },
		"allow dumps":        func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
		"outlive the driver": func() error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0) },
		"another filter": func() error {
			return call(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&[1]uint32{unix.SECCOMP_RET_ALLOW})))
		},
		"load a BPF program": func() error { return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&[128]byte{})), 128) },
		"read a key":         func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); return err },
		"measure the machine": func() error {
			return call(unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&unix.PerfEventAttr{})), 0, math.MaxUint, math.MaxUint, 0)
		},
		"take page faults":   func() error { return call(unix.SYS_USERFAULTFD, 0) },
		"set the clock":      func() error { return unix.Settimeofday(&unix.Timeval{}) },
		"read the host name": func() error { return unix.Uname(&unix.Utsname{}) },
		"raise priority":     func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) },
		"leave the limits":   func() error { return unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: 1 << 40, Max: 1 << 40}) },
		"leave by prlimit":   func() error { return unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 9, Max: 9}, nil) },
	}
}

func takeCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: 1, Permitted: 1}}
	return unix.Capset(&header, &data[0])
}

const large = 256 << 20

func memoryAttacks() map[string]func() error {
	return map[string]func() error{
		"large memory": func() error {
			return mapMemory(large, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		},
		"shared memory": func() error {
			return mapMemory(large, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
		},
		"small memories": manyMemories,
		"code": func() error {
			return mapMemory(4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		},
		"memory to code":  func() error { return unix.Mprotect(make([]byte, 4096), unix.PROT_READ|unix.PROT_EXEC) },
		"grow the break":  func() error { return call(unix.SYS_BRK, 0) },
		"move memory":     func() error { return call(unix.SYS_MREMAP, 0, 4096, 8192, 1) },
		"System V memory": func() error { return call(unix.SYS_SHMGET, unix.IPC_PRIVATE, 4096, unix.IPC_CREAT) },
		"lock memory":     func() error { return unix.Mlockall(unix.MCL_FUTURE) },
	}
}

// mapMemory gives back what it got, for the attacks to come.
func mapMemory(size, protection, flags uintptr) error {
	address, _, errno := syscall.Syscall6(unix.SYS_MMAP, 0, size, protection, flags, math.MaxUint, 0)
	if errno != 0 {
		return errno
	}
	return call(unix.SYS_MUNMAP, address, size)
}

// fillMemory takes and writes all the memory that it can have.
func fillMemory() error {
	const size = 1 << 20
	for i := range 1 << 12 {
		address, _, errno := syscall.Syscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, math.MaxUint, 0)
		if errno != 0 {
			return fmt.Errorf("after %d MiB: %w", i, errno)
		}
		for offset := uintptr(0); offset < size; offset += 4096 {
			*(*byte)(unsafe.Add(unsafe.Pointer(nil), address+offset)) = 1
		}
	}
	return nil
}

func manyMemories() error {
	const size = 1 << 20
	for i := range large / size {
		address, _, errno := syscall.Syscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, math.MaxUint, 0)
		if errno != 0 {
			return fmt.Errorf("after %d MiB: %w", i, errno)
		}
		defer func() { _ = call(unix.SYS_MUNMAP, address, size) }()
	}
	return nil
}
