package bench

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
)

// metrics are what the program tells Prometheus, without labels.
func (n *node) metrics(b testing.TB) map[string]float64 {
	b.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(n.Process.Metrics(b)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseFloat(text, 64); err == nil {
			all[name] = value
		}
	}
	return all
}

func isRequestCount(name string) bool {
	return strings.HasPrefix(name, "vaultmount_vault_requests_total{")
}

func (n *node) metric(b testing.TB, name string) float64 {
	b.Helper()
	value, there := n.metrics(b)[name]
	if !there {
		b.Fatalf("/metrics has no %s", name)
	}
	return value
}

// liveHeap is what the driver keeps: the least that its heap holds while it is
// collected twice. Reading its metrics is what gives it something to collect.
func (n *node) liveHeap(b testing.TB) float64 {
	b.Helper()
	const collections, heap = "go_gc_duration_seconds_count", "go_memstats_heap_alloc_bytes"
	first := n.metrics(b)
	least := first[heap]
	for {
		now := n.metrics(b)
		least = min(least, now[heap])
		if now[collections] >= first[collections]+3 {
			return least
		}
	}
}

func cpuTime(b testing.TB, pid int) time.Duration {
	b.Helper()
	used, err := rig.CPUTime(pid)
	require.NoError(b, err)
	return used
}

// processorTimes are those of the driver and of its renderers together.
func (n *node) processorTimes(b testing.TB) (driver, renderers time.Duration) {
	b.Helper()
	for _, pid := range n.Process.Children(b) {
		renderers += cpuTime(b, pid)
	}
	return cpuTime(b, n.Process.Process.Pid), renderers
}

// proportional is the memory of a process in bytes, where what it shares with others
// counts in parts (PSS), less what is tmpfs.
func proportional(b testing.TB, pid int) float64 {
	b.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	require.NoError(b, err)
	defer file.Close()
	text, err := io.ReadAll(file)
	require.NoError(b, err)
	found := regexp.MustCompile(`(?m)^Pss: +(\d+) kB`).FindSubmatch(text)
	if found == nil {
		b.Fatalf("no Pss in %s", text)
	}
	kilobytes, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(b, err)
	return kilobytes * 1024
}

// bytesRead is what a process has read by system calls so far.
func bytesRead(b testing.TB, pid int) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	require.NoError(b, err)
	found := regexp.MustCompile(`(?m)^rchar: (\d+)`).FindSubmatch(text)
	if found == nil {
		b.Fatalf("no rchar in %s", text)
	}
	bytes, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(b, err)
	return bytes
}
