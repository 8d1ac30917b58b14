package parts

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// output runs cmd in a process group of its own, which ends with cmd's context:
// go build and apt-get do their work in children of their own. An error carries
// the end of what cmd wrote to its standard error.
func output(cmd *exec.Cmd) (string, error) {
	// A killed caller takes its build with it: it no longer holds the lock that
	// keeps a second build away. The signal comes when the starting thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	err := cmd.Run()
	if err == nil {
		return strings.TrimSpace(stdout.String()), nil
	}
	name := filepath.Base(cmd.Path)
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("run %s: %w", name, err)
	}
	return "", fmt.Errorf("run %s %s: %w\n%s", name, cmd.Args[1], err, lastLines(stderr.String(), 20))
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
