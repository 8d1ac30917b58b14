package component

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

const (
	corpus = "testdata/hostile.txt"
	arrow  = "\n=> "
)

// What templates do to a node that runs the real program: each ends with an error
// that says why, nothing of it stays, and the next pod gets its files. The file
// holds the templates and what a user reads.
func TestHostileTemplates(t *testing.T) {
	n, driver := startProgram(t)
	idle := measure(t, driver) // with one worker, which nothing replaces meanwhile
	n.requirePublished(t, "before", nil, nil)
	before := measure(t, driver)

	templates, _ := readCorpus(t)
	outcomes := map[string]string{}
	for name, text := range templates {
		outcomes[name] = n.requireRefused(t, name, text)
	}
	requireCorpus(t, templates, outcomes)
	for name, text := range nestedTemplates() {
		outcome := n.requireRefused(t, name, text)
		if !strings.HasPrefix(outcome, "InvalidArgument: ") || len(outcome) > 300 {
			t.Errorf("%s: got %s", name, outcome)
		}
	}

	n.requirePublished(t, "after", nil, nil)
	var after usage
	rig.Eventually(t, "the driver has as many files as it has workers", func() bool {
		after = measure(t, driver)
		more := len(after.children) - len(idle.children)
		return more <= 3 && after.files-idle.files == more*filesPerWorker
	})
	t.Logf("the driver had %d KiB of memory, and has %d KiB", before.resident>>10, after.resident>>10)
	if after.resident > before.resident+32*mebibyte {
		t.Error("its memory does not return to its level")
	}
	if err := driver.Process.Signal(os.Interrupt); err != nil {
		t.Fatal("the driver has ended")
	}
	if err := driver.Wait(); err != nil {
		t.Error(err)
	}
	for _, child := range before.children {
		if _, err := os.Stat("/proc/" + strconv.Itoa(child)); err == nil {
			t.Errorf("process %d outlives the driver", child)
		}
	}
}

// requireRefused returns the code and the message.
func (n *node) requireRefused(t *testing.T, name, text string) string {
	t.Helper()
	request := n.request(t, name, map[string]string{"template/hostile": text})
	_, err := n.calls.NodePublishVolume(t.Context(), request)
	if err == nil {
		t.Errorf("%s is mounted", name)
	}
	rig.RequireNothing(t, request.GetTargetPath())
	outcome := strings.ReplaceAll(fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message()), n.Server.Address, "VAULT")
	if strings.Contains(outcome, password) {
		t.Errorf("%s: the error holds a secret: %s", name, outcome)
	}
	return outcome
}

// readCorpus returns the templates by their names, and what users read of each.
func readCorpus(t *testing.T) (templates, outcomes map[string]string) {
	t.Helper()
	templates, outcomes = map[string]string{}, map[string]string{}
	for section := range strings.SplitSeq("\n"+mustRead(t, corpus), "\n-- ") {
		if section == "" {
			continue
		}
		name, rest, _ := strings.Cut(section, " --\n")
		text, outcome, ok := strings.Cut(rest, arrow)
		if !ok {
			t.Fatalf("%s: %s has no line with an arrow", corpus, name)
		}
		templates[name], outcomes[name] = text, strings.TrimSpace(outcome)
	}
	return templates, outcomes
}

// isUsedUp tells whether a template was stopped for memory or CPU time. Go
// spends the more time on collecting the less memory is left, so which of the two
// is used up first is the machine's to say where a template takes much of both.
func isUsedUp(outcome string) bool {
	return strings.HasSuffix(outcome, "of memory") || strings.HasSuffix(outcome, "of CPU time")
}

func requireCorpus(t *testing.T, templates, outcomes map[string]string) {
	t.Helper()
	_, known := readCorpus(t)
	for name, outcome := range outcomes {
		if isUsedUp(outcome) && isUsedUp(known[name]) {
			outcomes[name] = known[name]
		}
	}
	var sections []string
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		sections = append(sections, "-- "+name+" --\n"+templates[name]+arrow+outcomes[name]+"\n")
	}
	got := strings.Join(sections, "\n")
	if *update {
		require.NoError(t, os.WriteFile(corpus, []byte(got), 0o644))
		return
	}
	if want := mustRead(t, corpus); got != want {
		t.Errorf("%s differs (go test -update writes it):\n%s", corpus, got)
	}
}

// nestedTemplates are too long for a file that someone reads, and just short enough for
// a volume.
func nestedTemplates() map[string]string {
	var definitions strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&definitions, `{{define "%d"}}{{end}}`, i)
	}
	return map[string]string{
		"nested-parentheses": "{{ " + strings.Repeat("(", 200_000) + " }}",
		"nested-blocks":      strings.Repeat("{{ if 1 }}", 13_000) + "{{ nope }}" + strings.Repeat("{{ end }}", 13_000),
		"nested-pipes":       "{{ 1" + strings.Repeat(" | print", 32_000) + " | nope }}",
		"long-chain":         "{{ $x := 1 }}{{ $x" + strings.Repeat(".x", 130_000) + " | nope }}",
		"many-definitions":   definitions.String() + `{{ range sprig_until 10000000 }}{{ template "7" }}{{ end }}`,
		"long-text":          strings.Repeat("x", 255<<10) + "{{ nope }}",
	}
}

// A tenant starts pods with hostile templates again and again, and a pod of another
// tenant gets its files all the same: no order of calls makes it wait for their end.
func TestHostileTemplatesBesideOthers(t *testing.T) {
	// An hour: were a pod to wait for one of them, it would not be ready in time.
	n, driver := startProgram(t, "--template-cpu-limit=1h")
	alone := n.publishMany(t, "alone")

	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 4 {
		pod := rig.Pod{Namespace: "hostile", Name: fmt.Sprintf("hostile-%d", i), ServiceAccount: rig.Role, Volume: "vault-secrets"}
		request := n.kubelet.RequestFor(t, n.Vault, pod, map[string]string{"template/hostile": `{{ range sprig_until 10000 }}{{ range sprig_until 10000 }}{{ range sprig_until 10000 }}{{ end }}{{ end }}{{ end }}`})
		group.Go(func() {
			for ctx.Err() == nil {
				if _, err := n.calls.NodePublishVolume(ctx, request); status.Code(err) != codes.Canceled && status.Code(err) != codes.Unavailable {
					t.Errorf("a hostile volume: %v", err)
				}
			}
		})
	}
	rig.Eventually(t, "hostile templates run, and a spare process waits", func() bool { return len(measure(t, driver).children) > 2 })
	beside := n.publishMany(t, "beside")
	cancel()
	group.Wait()
	t.Logf("median of a publish: %s alone, %s beside four hostile ones", alone, beside)
}

// publishMany returns the median time of publishing a volume.
func (n *node) publishMany(t *testing.T, name string) time.Duration {
	t.Helper()
	times := make([]time.Duration, 21)
	for i := range times {
		// A function of consul-template takes a process to run.
		text := connectionTemplate + `{{ "a" | toUpper }}`
		request := n.request(t, fmt.Sprintf("%s-%d", name, i), map[string]string{"template/db": text})
		start := time.Now()
		n.mustPublish(t, request)
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[len(times)/2]
}

// A driver that is killed takes its workers along.
func TestWorkersEndWithTheDriver(t *testing.T) {
	_, driver := startProgram(t)
	children := measure(t, driver).children
	if len(children) != 1 {
		t.Fatalf("the driver has the processes %v", children)
	}
	driver.Kill(t)
	rig.Eventually(t, "the worker has ended", func() bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(children[0]))
		return err != nil
	})
}

// startProgram runs the real program as a driver that is ready, as a process of
// its own.
func startProgram(t *testing.T, arguments ...string) (*node, *rig.Process) {
	t.Helper()
	fixture := rig.StartVault(t)
	n := &node{Vault: fixture, kubelet: rig.NewKubelet(t)}
	driver := rig.StartProcess(t, n.kubelet, fixture.Server.Address, arguments...)
	n.calls = csi.NewNodeClient(rig.Dial(t, n.endpoint()))
	if _, err := n.calls.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	return n, driver
}

// filesPerWorker are its three pipes, its statm, and what the driver waits for its end with.
const filesPerWorker = 5

// usage is what a process has of the node.
type usage struct {
	children []int
	files    int
	resident int64
}

func measure(t *testing.T, p *rig.Process) usage {
	t.Helper()
	directory := "/proc/" + strconv.Itoa(p.Process.Pid)
	files, err := os.ReadDir(directory + "/fd")
	require.NoError(t, err)
	u := usage{children: p.Children(t)}
	for _, file := range files {
		// Connections to Vault come and go.
		if target, err := os.Readlink(directory + "/fd/" + file.Name()); err == nil && !strings.HasPrefix(target, "socket:") {
			u.files++
		}
	}
	pages, err := strconv.ParseInt(strings.Fields(mustRead(t, directory+"/statm"))[1], 10, 64)
	require.NoError(t, err)
	u.resident = pages * int64(os.Getpagesize())
	return u
}
