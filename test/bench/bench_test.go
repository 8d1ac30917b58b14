package bench

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/rig"
)

var (
	small = flag.Bool("small", false, "measure little, to see that the benchmark works")
	keep  = flag.String("keep", "", "directory to keep profiles in, for go tool pprof")
	out   = flag.String("out", "", "directory to write the report to; nothing is written without it")
	// update is for the report that is committed, like that of golden files.
	update = flag.Bool("update", false, "write the report that later runs are compared with")
)

// size is how much is measured.
type size struct {
	pods, agents int // one after the other
	bursts       []int
	rounds       int // of each burst
	levels       []int
	samples      int // pods at each level
	republishes  int
	sidecars     int
	idle         int // volumes
	admissions   int
	watch        time.Duration
	profile      time.Duration
}

func chosen() size {
	if *small {
		return size{
			pods: 30, agents: 3, bursts: []int{20}, rounds: 1, levels: []int{10, 100}, samples: 10,
			republishes: 200, sidecars: 2, idle: 100, admissions: 20, watch: 12 * time.Second, profile: 10 * time.Second,
		}
	}
	return size{
		pods: 300, agents: 30, bursts: []int{110, 1000}, rounds: 3, levels: []int{100, 1000, 5000}, samples: 100,
		republishes: 2000, sidecars: 10, idle: 1000, admissions: 300, watch: 40 * time.Second, profile: 20 * time.Second,
	}
}

// BenchmarkSideBySide makes the whole report, in one run, and fails if a ratio got
// worse by more than a quarter since the report that is committed.
func BenchmarkSideBySide(b *testing.B) {
	report, size := &Report{Machine: machine(b), Run: conditions(b)}, chosen()
	vault := rig.StartVault(b)
	var n *node
	inOrder([]step{
		{"from request to readable file", func() { n = startNode(b, vault); latency(b, report, n, size) }},
		{"many pods at once", func() { burst(b, report, n, size); n.end(b) }},
		{"growth with the number of volumes", func() { growth(b, report, vault, size) }},
		{"CPU time", func() { processor(b, report, vault, size) }},
		{"requests to Vault", func() { requestsToVault(b, report, size) }},
		{"parts", func() { pieces(b, report, size) }},
		{"admission, on a cluster", func() { admissions(b, report, size) }},
		{"profiles of missed goals", func() { profiles(b, report, vault, size) }},
	})
	report.Run += "; load at its end " + load(b)
	if *update {
		write(b, report, ".")
		return
	}
	if *out != "" {
		write(b, report, *out)
	}
	for _, goal := range Missed(report.Ratios) {
		b.Logf("goal missed: %s: %.3g, and the goal is %s", goal.Ratio, report.Ratios[goal.Ratio].Value, goal)
	}
	committed, err := ReadRatios("ratios.json")
	if errors.Is(err, fs.ErrNotExist) {
		b.Log("there is no report yet to compare with; make bench UPDATE=1 on a quiet machine writes one")
		return
	}
	require.NoError(b, err)
	for _, text := range Worse(committed, report.Ratios) {
		b.Errorf("worse by more than a quarter: %s", text)
	}
}

// step is a part of the report that takes up to some minutes.
type step struct {
	title   string
	measure func()
}

// inOrder tells what is under way.
func inOrder(steps []step) {
	for i, each := range steps {
		start := time.Now()
		fmt.Fprintf(os.Stderr, "%d of %d: %s …\n", i+1, len(steps), each.title)
		each.measure()
		fmt.Fprintf(os.Stderr, "%d of %d: %s took %.0f s\n", i+1, len(steps), each.title, time.Since(start).Seconds())
	}
}

func write(b *testing.B, report *Report, directory string) {
	b.Helper()
	plots := filepath.Join(directory, "plots")
	require.NoError(b, os.MkdirAll(plots, 0o755))
	for _, plot := range report.Plots {
		require.NoError(b, plot.Draw(plots))
	}
	file, err := os.Create(filepath.Join(directory, "REPORT.md"))
	require.NoError(b, err)
	defer file.Close()
	require.NoError(b, report.Write(file))
	require.NoError(b, WriteRatios(filepath.Join(directory, "ratios.json"), report.Ratios))
}

// machine says what the times depend on.
func machine(b *testing.B) string {
	b.Helper()
	var name unix.Utsname
	require.NoError(b, unix.Uname(&name))
	model := "unknown processor"
	text, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(b, err)
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d processors (%s), Linux %s, %s", runtime.NumCPU(), model, unix.ByteSliceToString(name.Release[:]), runtime.Version())
}

func conditions(b *testing.B) string {
	b.Helper()
	text := time.Now().UTC().Format("2006-01-02 15:04 UTC") + ", load of the machine at its start " + load(b)
	if *small {
		text = "with -small, of no meaning; " + text
	}
	return text
}

// load is what else the machine did in the last minute.
func load(b *testing.B) string {
	b.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	require.NoError(b, err)
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
