package usermode

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

func run(t *testing.T, script string) (string, error) {
	t.Helper()
	kernel, err := parts.UserModeLinux(t.Context(), t.Output())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	output := &console{cancel: cancel}
	err = Run(ctx, kernel, Command{Args: []string{"sh", "-c", script}, Dir: "/", Env: []string{"PATH=/bin:/sbin", "WORD=it's here"}, Memory: memory, Output: output})
	t.Log(output.text.String())
	return output.text.String(), err
}

// console ends the run when the command asks for that.
type console struct {
	text   strings.Builder
	cancel context.CancelFunc
}

func (c *console) Write(text []byte) (int, error) {
	n, err := c.text.Write(text)
	if strings.Contains(c.text.String(), "cancel me") {
		c.cancel()
	}
	return n, err
}

// memory is an odd number, by which the processes of these kernels are known.
const memory = 256<<20 + 12288

func TestKernelBoundsMemoryByVersion2(t *testing.T) {
	output, err := run(t, `
set -e
cd /sys/fs/cgroup
echo +memory > cgroup.subtree_control
mkdir bounded
echo 8M > bounded/memory.max
(echo 0 > bounded/cgroup.procs; head -c 64000000 /dev/zero | tail -c 64000000 | wc -c) || true
echo "killed: $(sed -n 's/^oom_kill //p' bounded/memory.events)"
echo "the word is $WORD"
`)
	require.NoError(t, err)
	// The kernel kills tail, and sometimes wc beside it, which is small.
	for _, want := range []string{`killed: [1-9]`, `the word is it's here`} {
		if !regexp.MustCompile(want).MatchString(output) {
			t.Errorf("%q is not in:\n%s", want, output)
		}
	}
}

func TestExitStatusOfTheCommand(t *testing.T) {
	_, err := run(t, "exit 7")
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("the error is %v, want exit status 7", err)
	}
}

// The kernel has a process for each of its own, and all of them go with it.
func TestCanceledRunLeavesNoProcess(t *testing.T) {
	_, err := run(t, "sleep 600 & sleep 600 & echo cancel me; sleep 600")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want the context's", err)
	}
	if left := processes(t); len(left) > 0 {
		t.Errorf("processes %q are left", left)
	}
}

// processes are the directories in /proc of the processes of these kernels.
func processes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found []string
	for _, file := range files {
		if arguments, _ := os.ReadFile(file); strings.Contains(string(arguments), "mem="+strconv.Itoa(memory)) {
			found = append(found, filepath.Dir(file))
		}
	}
	return found
}
