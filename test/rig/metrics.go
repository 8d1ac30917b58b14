package rig

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// HealthLine is what the program logs beside the address of its health and metrics.
const HealthLine = "Serving health and metrics"

// Metrics is what the program tells Prometheus.
func (p *Process) Metrics(t testing.TB) string {
	t.Helper()
	response, err := http.Get("http://" + p.Address(t, HealthLine) + "/metrics")
	must(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(t, err)
	return string(text)
}

// Metric is the value of one metric without labels.
func (p *Process) Metric(t testing.TB, name string) float64 {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(p.Metrics(t))
	if found == nil {
		t.Fatalf("/metrics has no %s", name)
	}
	value, err := strconv.ParseFloat(found[1], 64)
	must(t, err)
	return value
}

// Children are the processes that the program has started: those that run templates.
func (p *Process) Children(t testing.TB) []int {
	t.Helper()
	// A list for each thread, since threads have children.
	lists, err := filepath.Glob("/proc/" + strconv.Itoa(p.Process.Pid) + "/task/*/children")
	must(t, err)
	var children []int
	for _, list := range lists {
		content, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range strings.Fields(string(content)) {
			pid, err := strconv.Atoi(field)
			must(t, err)
			children = append(children, pid)
		}
	}
	return children
}

// CPUTime is the CPU time that a process has taken, without its children. It is an
// error if the process has gone.
func CPUTime(pid int) (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED
	var used unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|processClock), &used)
	return time.Duration(used.Nano()), err
}
