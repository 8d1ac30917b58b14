package usermode

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/test/parts"
)

func run(t *testing.T, script string) (string, error) {
	t.Helper()
	kernel, err := parts.UserModeLinux(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var output bytes.Buffer
	err = Run(ctx, kernel, Command{Args: []string{"sh", "-c", script}, Dir: "/", Env: []string{"PATH=/bin:/sbin", "WORD=it's here"}, Memory: 256 << 20, Output: &output})
	t.Log(output.String())
	return output.String(), err
}

func TestKernelBoundsMemoryByVersion2(t *testing.T) {
	output, err := run(t, `
set -e
cd /sys/fs/cgroup
echo +memory > cgroup.subtree_control
mkdir bounded
echo 8M > bounded/memory.max
(echo 0 > bounded/cgroup.procs; head -c 64000000 /dev/zero | tail -c 64000000 | wc -c) || true
cat bounded/memory.events
echo "the word is $WORD"
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"oom_kill 1", "the word is it's here"} {
		if !strings.Contains(output, want) {
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
