package bench

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var servingAt = regexp.MustCompile(`"Serving health and metrics" address="([^"]+)"`)

// metrics are what the program tells Prometheus, without labels.
func (n *node) metrics(b testing.TB) map[string]float64 {
	b.Helper()
	// The last process is the one that runs.
	found := servingAt.FindAllStringSubmatch(n.process.Log.String(), -1)
	if found == nil {
		b.Fatal("the driver does not say where it serves metrics")
	}
	response, err := http.Get("http://" + found[len(found)-1][1] + "/metrics")
	require.NoError(b, err)
	defer response.Body.Close()
	all := map[string]float64{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
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

// renderers are the processes that run templates, the driver's children.
func (n *node) renderers(b testing.TB) []int {
	b.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(b, err)
	var children []int
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid; the name may hold anything but is the program's here.
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(n.process.Process.Pid) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
			require.NoError(b, err)
			children = append(children, pid)
		}
	}
	return children
}

// cpuTime is what a process has used, by the clock that the kernel has for
// each process.
func cpuTime(b testing.TB, pid int) time.Duration {
	b.Helper()
	const processClock = 2 // CPUCLOCK_SCHED
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &used); err != nil {
		b.Fatalf("read the CPU time of process %d: %v", pid, err)
	}
	return time.Duration(used.Nano())
}

// processorTimes are those of the driver and of its renderers together.
func (n *node) processorTimes(b testing.TB) (driver, renderers time.Duration) {
	b.Helper()
	for _, pid := range n.renderers(b) {
		renderers += cpuTime(b, pid)
	}
	return cpuTime(b, n.process.Process.Pid), renderers
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
