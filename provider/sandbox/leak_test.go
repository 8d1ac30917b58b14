package sandbox

import (
	"context"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Not parallel: it counts what the whole process has.
func TestNothingLeaks(t *testing.T) {
	// The runtime opens files for its poller, and those stay.
	warm := startPool(t, generous())
	requireWorking(t, warm)
	if err := warm.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return ownGoroutines(t) == 0 })
	files := openFiles(t)

	limits := generous()
	limits.CPU = 50 * time.Millisecond
	pool := startPool(t, limits)
	for _, name := range []string{"promise 4 GiB", "exit", "crash", "many elements", "half a message"} {
		if _, err := attack(t, pool, name); err == nil {
			t.Errorf("%s went well", name)
		}
	}
	for _, text := range []string{endless, `{{ sprig_repeat 200000000 "x" }}`, `{{ if }}`} {
		if _, err := render(pool, t.Context(), file(text), nil); err == nil {
			t.Errorf("%s went well", text)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := render(pool, ctx, file(endless), nil); err == nil {
		t.Error("an endless template ended")
	}
	requireWorking(t, pool)
	waitUntil(t, func() bool { return pool.hasSpare() && len(children(t)) == 2 })
	if got := openFiles(t) - files; got != 2*4 {
		t.Errorf("%d files are open for two workers, want three pipes and what Go holds to wait for it for each", got)
	}
	if err := pool.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return ownGoroutines(t) == 0 })
	if got := children(t); len(got) != 0 {
		t.Errorf("processes %v are left", got)
	}
	if got := openFiles(t); got != files {
		t.Errorf("%d files are open, and %d were before", got, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children are the processes of this one, zombies included.
func children(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parent := "PPid:\t" + strconv.Itoa(os.Getpid()) + "\n"
	var found []string
	for _, entry := range entries {
		if status, err := os.ReadFile("/proc/" + entry.Name() + "/status"); err == nil && strings.Contains(string(status), parent) {
			found = append(found, entry.Name())
		}
	}
	return found
}

// ownGoroutines counts the goroutines of workers.
func ownGoroutines(t *testing.T) int {
	t.Helper()
	var stacks strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	count := 0
	for stack := range strings.SplitSeq(stacks.String(), "\n\n") {
		if strings.Contains(stack, "sandbox.onThread") || strings.Contains(stack, "sandbox.(*p") {
			count++
		}
	}
	return count
}
