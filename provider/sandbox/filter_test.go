package sandbox

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

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
