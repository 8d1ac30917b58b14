package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestStartTimeOfProgramWithParentheses(t *testing.T) {
	stat := "7 (a) b (c)) S 1 7 7 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 12345 1000 10\n"
	start, err := startTime([]byte(stat))
	if err != nil || start != 12345 {
		t.Fatalf("start time %d, %v; want 12345", start, err)
	}
	if _, err := startTime([]byte("7 (a")); err == nil {
		t.Fatal("no error for a torn status")
	}
}

func TestRecycledPIDIsAnotherProcess(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	defer cmd.Wait()
	defer cmd.Process.Kill()
	id, err := Identify(cmd.Process.Pid)
	require.NoError(t, err)
	id.Start-- // an earlier process of the same number
	if _, err := id.Open(); !errors.Is(err, ErrGone) {
		t.Fatalf("open gives %v; want ErrGone", err)
	}
}

func TestWaitSeesTheEnd(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	id, err := Identify(cmd.Process.Pid)
	require.NoError(t, err)
	h, err := id.Open()
	require.NoError(t, err)
	defer h.Close()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := h.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("wait for a running process gives %v", err)
	}
	require.NoError(t, h.Signal(unix.SIGKILL))
	require.NoError(t, h.Wait(t.Context()))
	if _, err := id.Open(); !errors.Is(err, ErrGone) {
		t.Fatalf("open of a process nobody has collected gives %v; want ErrGone", err)
	}
	_ = cmd.Wait() // tells what killed it
	if _, err := id.Open(); !errors.Is(err, ErrGone) {
		t.Fatalf("open gives %v; want ErrGone", err)
	}
	if _, err := Identify(os.Getpid()); err != nil {
		t.Fatal(err)
	}
}
