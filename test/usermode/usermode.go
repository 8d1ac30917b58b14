// Package usermode runs a command on a kernel of its own: User Mode Linux, an ordinary
// process that sees the machine's files. Its control groups are of version 2, whatever
// those of the machine are. It changes none of the machine's mounts or groups, and it
// is no wall: the command writes to the machine's files as the caller may.
package usermode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/parts"
)

// Command is what to run.
type Command struct {
	Args   []string
	Dir    string   // absolute
	Env    []string // in place of the caller's; TMPDIR is set in any case
	Memory int64    // of the kernel, in bytes; the machine gives it as it is used
	Output io.Writer
}

// ExitError is how a Command failed that ran.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// Run runs a command until it ends, with an ExitError if it fails; when ctx ends, the
// kernel is killed with all that it runs. It takes root: as another user it cannot
// mount.
func Run(ctx context.Context, parts parts.UserMode, command Command) error {
	scratch, err := os.MkdirTemp("", "usermode-*")
	if err != nil {
		return fmt.Errorf("run in user mode: %w", err)
	}
	defer os.RemoveAll(scratch)
	script, status := filepath.Join(scratch, "init"), filepath.Join(scratch, "status")
	if err := os.WriteFile(script, []byte(initScript(parts.Busybox, status, command)), 0o700); err != nil {
		return fmt.Errorf("run in user mode: %w", err)
	}
	kernel := exec.CommandContext(ctx, parts.Kernel,
		"mem="+strconv.FormatInt(command.Memory, 10), "quiet", "panic=-1",
		"rootfstype=hostfs", "rootflags=/", "rw", "init="+script,
		"con=null", "con0=null,fd:1",
	)
	kernel.Stdout = command.Output
	// It keeps a process for each of its own, which would outlive it: as process 1 of a
	// namespace it takes them along. The signal comes when the starting thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	kernel.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	kernel.Env = []string{"HOME=" + scratch, "TMPDIR=/dev/shm"} // a directory of its own, and its memory, which is a file
	kernelErr := kernel.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("run in user mode: %w", ctx.Err())
	}
	output, err := os.ReadFile(status)
	if err != nil {
		return fmt.Errorf("run in user mode: read exit status: %w", errors.Join(err, kernelErr))
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(output)))
	if err != nil {
		return fmt.Errorf("run in user mode: the kernel ended before the command: %w", errors.Join(err, kernelErr))
	}
	if code != 0 {
		return &ExitError{code}
	}
	return nil
}

// initScript is process 1 of the kernel. Unix sockets do not work on the machine's
// files, so /run and the directory of temporary files are in memory.
func initScript(busybox, status string, command Command) string {
	var script strings.Builder
	fmt.Fprintf(&script, "#!%s sh\nbusybox=%s\n", busybox, quote(busybox))
	script.WriteString(`$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec 3>` + quote(status) + `
$busybox mount -t tmpfs -o mode=755 tmpfs /run
$busybox mkdir -m 1777 /run/tmp
$busybox ip link set lo up
`)
	fmt.Fprintf(&script, "cd %s\n$busybox env -i", quote(command.Dir))
	for _, word := range slices.Concat(command.Env, []string{"TMPDIR=/run/tmp"}, command.Args) {
		script.WriteString(" " + quote(word))
	}
	script.WriteString("\necho $? >&3\n$busybox poweroff -f\n")
	return script.String()
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
