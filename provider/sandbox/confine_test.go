package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/template"
)

func resolve(name string) error {
	resolver := &net.Resolver{PreferGo: true}
	_, err := resolver.LookupHost(context.Background(), name)
	return err
}

// Whatever code runs in a worker, nothing of this works.
func TestAttacksFromInside(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	for _, name := range slices.Sorted(maps.Keys(attacks())) {
		t.Run(name, func(t *testing.T) {
			got, err := attack(t, pool, name)
			if err != nil || !strings.HasPrefix(got, "refused: ") {
				t.Fatalf("it says %q, %v", got, err)
			}
			t.Log(got)
		})
	}
}

// Behind the filter of system calls there is another wall: the same attacks, where
// a worker may call what it likes.
func TestAttacksPastTheFilter(t *testing.T) {
	t.Parallel()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	worker, err := startWorker(t.Context(), program, []string{Command, unfiltered}, firstID)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.end()
	// These the filter alone prevents, and they lead to nothing but the worker.
	harmless := map[string]bool{
		"list the root": true, "open /": true, "open .": true, "open ..": true, "open with openat2": true, "stat": true, "working directory": true, "leave the root": true,
		"memory file": true, "socket pair": true, "socket IPv4": true, "socket IPv6": true, "socket unix": true, "socket netlink": true, "socket packet": true, "socket vsock": true, "socket crypto": true,
		"io_uring": true, "signal itself": true, "signal with tkill": true, "open a process": true, "fork": true, "fork as a number": true, "fork with clone3": true, "read another's memory": true,
		"new user namespace": true, "allow dumps": true, "outlive the driver": true, "another filter": true, "read a key": true, "take page faults": true, "read the host name": true,
		"measure the machine": true, "code": true, "memory to code": true, "shared memory": true, "grow the break": true, "System V memory": true, "lock memory": true, "duplicate a file": true,
		"leave by prlimit": true, "move memory": true,
	}
	for _, name := range slices.Sorted(maps.Keys(attacks())) {
		if harmless[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			const long = 30 * time.Second
			stuck := time.AfterFunc(long, func() { t.Logf("what its threads are at after %s:\n%s", long, threads(worker.command.Process.Pid)) })
			defer stuck.Stop()
			asked := template.Template{Name: attackPrefix + name}
			received, output := receive(asked)
			err := worker.roundTrip(t.Context(), encode(t, asked), Limits{CPU: time.Minute, Wall: 2 * long}, received.read)
			if got := output(); err != nil || !strings.HasPrefix(got, "refused: ") {
				t.Fatalf("it says %q, %v", got, err)
			}
		})
	}
}

// threads tells which system call each thread of a process is in, with its arguments,
// and what it waits for there.
func threads(pid int) string {
	var all strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is a good one
	for _, task := range tasks {
		for _, file := range []string{"syscall", "wchan"} {
			text, err := os.ReadFile(filepath.Join(task, file))
			fmt.Fprintf(&all, "%s: %s, %v\n", filepath.Join(task, file), strings.TrimSpace(string(text)), err)
		}
	}
	return all.String()
}

// The attacks work where nothing confines them; else they would prove nothing. They
// leave files open that no program of Go's would hand down, and that a worker which is
// started meanwhile would inherit: so no other test runs at that time.
func TestAttacksWorkElsewhere(t *testing.T) {
	for _, name := range []string{
		"open /etc/passwd", "open /", "open /proc/self/environ", "stat", "list the root", "environment", "socket IPv4", "socket unix", "socket netlink", "signal itself", "signal another",
		"open a process", "duplicate a file", "large memory", "shared memory", "small memories", "code", "memory file", "read the host name", "grow the break",
	} {
		if err := attacks()[name](); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the kernel says of a worker that waits for a request.
func TestConfinementFromOutside(t *testing.T) {
	t.Parallel()
	pool := startPool(t, generous())
	directory := fmt.Sprintf("/proc/%d/", useFirst(t, pool).command.Process.Pid)
	status := readFile(t, directory+"status")
	for _, want := range []string{
		"Uid:\t2147483648\t2147483648\t2147483648\t2147483648\n", "Gid:\t2147483648\t2147483648\t2147483648\t2147483648\n", "Groups:\t \n",
		"NSpid:", "CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n",
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("%q is not in its status:\n%s", want, status)
		}
	}
	for _, namespace := range []string{"pid", "net", "ipc", "uts", "mnt", "cgroup"} {
		own, err := os.Readlink(directory + "ns/" + namespace)
		if err != nil {
			t.Fatal(err)
		}
		if driver, err := os.Readlink("/proc/self/ns/" + namespace); err != nil || own == driver {
			t.Errorf("it shares the namespace %s, %v", own, err)
		}
	}
	if mounts := strings.Fields(readFile(t, directory+"mountinfo")); !slices.Contains(mounts, "ro,nosuid,nodev,noexec,relatime") || len(mounts) > 11 {
		t.Errorf("it has mounts: %q", mounts)
	}
	if entries, err := os.ReadDir(directory + "root"); err != nil || len(entries) > 0 {
		t.Errorf("its root holds %v, %v", entries, err)
	}
	if environment := readFile(t, directory+"environ"); environment != "" {
		t.Errorf("its environment is %q", environment)
	}
	if score := readFile(t, directory+"oom_score_adj"); score != "1000\n" {
		t.Errorf("when memory is short its score is %s", score)
	}
	files, err := os.ReadDir(directory + "fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		target, err := os.Readlink(directory + "fd/" + file.Name())
		if err != nil || !strings.HasPrefix(target, "pipe:") && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			t.Errorf("file %s is %s, %v", file.Name(), target, err)
		}
	}
}

// A worker must not keep the main thread of the driver, which /proc/self shows,
// in its own view of the world.
func TestDriverKeepsItsOwnView(t *testing.T) {
	t.Parallel()
	before, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	startPool(t, generous())
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("the driver's mount namespace was %s and is %s, %v", before, after, err)
	}
	if status := readFile(t, "/proc/self/status"); !strings.Contains(status, "NoNewPrivs:\t0\n") || strings.Contains(status, "CapBnd:\t0000000000000000") {
		t.Errorf("the driver lost its privileges:\n%s", status)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestNotStartedByHand(t *testing.T) {
	t.Parallel()
	if err := verifyStart(); err == nil || !strings.Contains(err.Error(), "not by hand") {
		t.Errorf("got %v", err)
	}
}

// TestFilter runs the filter's program, with calls that its order could let pass.
func TestFilter(t *testing.T) {
	t.Parallel()
	const (
		allow = unix.SECCOMP_RET_ALLOW
		deny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		kill  = unix.SECCOMP_RET_KILL_PROCESS
		arch  = unix.AUDIT_ARCH_X86_64
		x32   = 0x40000000
		pid   = 1
	)
	vm, err := bpf.NewVM(program(arch, pid))
	if err != nil {
		t.Fatal(err)
	}
	const private = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	tests := map[string]struct {
		arch, number uint32
		arguments    [6]uint64
		want         uint32
	}{
		"read":                        {arch, unix.SYS_READ, [6]uint64{}, allow},
		"eventfd2":                    {arch, unix.SYS_EVENTFD2, [6]uint64{}, allow},
		"open":                        {arch, unix.SYS_OPENAT, [6]uint64{}, deny},
		"no such call":                {arch, 99999, [6]uint64{}, deny},
		"x32":                         {arch, unix.SYS_READ | x32, [6]uint64{}, deny},
		"32 bits":                     {unix.AUDIT_ARCH_I386, unix.SYS_READ, [6]uint64{}, kill},
		"thread":                      {arch, unix.SYS_CLONE, [6]uint64{unix.CLONE_THREAD | unix.CLONE_VM}, allow},
		"process":                     {arch, unix.SYS_CLONE, [6]uint64{uint64(unix.SIGCHLD)}, deny},
		"process by the upper half":   {arch, unix.SYS_CLONE, [6]uint64{unix.CLONE_THREAD << 32}, deny},
		"process by another number":   {arch, unix.SYS_CLONE, [6]uint64{unix.SYS_MMAP, 0, unix.PROT_READ, private}, deny},
		"process as read":             {arch, unix.SYS_CLONE, [6]uint64{unix.SYS_READ}, deny},
		"own thread":                  {arch, unix.SYS_TGKILL, [6]uint64{pid, 7, 23}, allow},
		"another process":             {arch, unix.SYS_TGKILL, [6]uint64{2, 2, 9}, deny},
		"memory":                      {arch, unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, private}, allow},
		"memory at an address":        {arch, unix.SYS_MMAP, [6]uint64{4096, 4096, unix.PROT_NONE, private | unix.MAP_FIXED}, allow},
		"code":                        {arch, unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_EXEC, private}, deny},
		"shared memory":               {arch, unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED | unix.MAP_ANONYMOUS}, deny},
		"shared memory, once more":    {arch, unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ, unix.MAP_SHARED_VALIDATE | unix.MAP_ANONYMOUS}, deny},
		"a file":                      {arch, unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE}, deny},
		"protection":                  {arch, unix.SYS_MPROTECT, [6]uint64{0, 4096, unix.PROT_EXEC}, deny},
		"run a program":               {arch, unix.SYS_EXECVE, [6]uint64{}, deny},
		"threads with clone3 as well": {arch, unix.SYS_CLONE3, [6]uint64{}, deny},
	}
	for name, test := range tests {
		// The machine reads big-endian words, where the kernel reads its own.
		data := make([]byte, argumentOffset+argumentSize*len(test.arguments))
		binary.BigEndian.PutUint32(data[numberOffset:], test.number)
		binary.BigEndian.PutUint32(data[archOffset:], test.arch)
		for i, argument := range test.arguments {
			offset := argumentOffset + argumentSize*i
			binary.BigEndian.PutUint32(data[offset:], uint32(argument))
			binary.BigEndian.PutUint32(data[offset+wordSize:], uint32(argument>>32))
		}
		if got, err := vm.Run(data); err != nil || uint32(got) != test.want {
			t.Errorf("%s: got %#x, %v, want %#x", name, got, err, test.want)
		}
	}
}
