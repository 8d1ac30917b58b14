package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
)

// load is a stream of pods with a volume, one each second. It knows how long each
// takes from the request for it until it is Ready.
type load struct {
	manifest string // %s is the pod's name

	mutex sync.Mutex
	asked map[string]time.Time
	ready map[string]time.Time
}

const (
	loadPods     = 60
	loadInterval = time.Second
	// loadSlack is what a pod may take longer than those before and after it.
	loadSlack = 3 * time.Second
	// loadAlive is how many pods live at a time; the oldest are deleted.
	loadAlive = 15
)

func newLoad(t *testing.T) *load {
	t.Helper()
	wizard, err := os.ReadFile("testdata/wizard.yaml")
	require.NoError(t, err)
	manifest := strings.Replace(string(wizard), "name: wizard\n  labels: {app: wizard}", "name: %s\n  labels: {app: load}", 1)
	if strings.Count(manifest, "%s") != 1 {
		t.Fatal("the manifest of the load has no name to set")
	}
	return &load{manifest: manifest, asked: map[string]time.Time{}, ready: map[string]time.Time{}}
}

func loadPod(i int) string { return fmt.Sprintf("load-%02d", i) }

// run makes the pods, and calls halfway after a third of them. It returns when all
// are ready.
func (l *load) run(t *testing.T, halfway func()) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := bed.Kubectl(context.Background(), "delete", "pods", "--selector=app=load", "--timeout=90s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	watching, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	l.watch(t, watching, &running)
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for i := range loadPods {
		l.create(t, loadPod(i))
		if i >= loadAlive && l.isReady(loadPod(i-loadAlive)) {
			kubectl(t, "delete", "pod", loadPod(i-loadAlive), "--wait=false")
		}
		if i == loadPods/3 {
			running.Go(halfway)
		}
		<-tick.C
	}
	eventually(t, "all pods of the load are ready", func() bool {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		return len(l.ready) == loadPods
	})
	stop()
	running.Wait()
}

func (l *load) create(t *testing.T, name string) {
	t.Helper()
	l.mutex.Lock()
	l.asked[name] = time.Now()
	l.mutex.Unlock()
	if _, err := bed.KubectlWithInput(t.Context(), fmt.Sprintf(l.manifest, name), "create", "-f", "-"); err != nil {
		t.Error(err)
	}
}

func (l *load) isReady(name string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return !l.ready[name].IsZero()
}

// watch notes when the API server tells that a pod is Ready. Its own times are in
// whole seconds.
func (l *load) watch(t *testing.T, ctx context.Context, running *sync.WaitGroup) {
	t.Helper()
	command := exec.CommandContext(ctx, bed.KubectlPath(), "get", "pods", "--selector=app=load", "--watch",
		`--output=jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}`)
	command.Env = append(os.Environ(), bed.Environment()...)
	output, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	running.Go(func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			name, status, _ := strings.Cut(lines.Text(), " ")
			l.mutex.Lock()
			if status == "True" && l.ready[name].IsZero() {
				l.ready[name] = time.Now()
			}
			l.mutex.Unlock()
		}
		_ = command.Wait() // it is killed when nobody needs it
	})
}

// neighbours are as many pods before and after one as it is compared with.
const neighbours = 3

// requireSteady fails the test if a pod took longer than its neighbours did. It
// returns how long each took.
func (l *load) requireSteady(t *testing.T) []time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range loadPods {
		took = append(took, l.ready[loadPod(i)].Sub(l.asked[loadPod(i)]))
	}
	for i, each := range took {
		near := slices.Concat(took[max(i-neighbours, 0):i], took[i+1:min(i+1+neighbours, len(took))])
		slices.Sort(near)
		if usual := near[len(near)/2]; each > usual+loadSlack {
			t.Errorf("%s took %s, and its neighbours %s", loadPod(i), each.Round(time.Millisecond), usual.Round(time.Millisecond))
		}
	}
	return took
}

// nextImage brings the driver's image into the cluster under another tag.
func nextImage(t *testing.T, tag string) {
	t.Helper()
	program, err := parts.Vaultmount(t.Context(), t.Output())
	require.NoError(t, err)
	next := image.Vaultmount(program)
	next.Name = strings.TrimSuffix(next.Name, "dev") + tag
	archive := filepath.Join(t.TempDir(), "next.tar")
	require.NoError(t, next.Save(archive))
	require.NoError(t, bed.ImportImage(t.Context(), archive))
}

// mostInGap is how many of the pods may be mounted while nobody serves the driver's socket,
// which is less than a second.
const mostInGap = 5

// requireUpgrade replaces the driver while a pod is created each second. No pod waits for
// it, the only failure is of calls between two instances, and running pods keep their tokens.
func requireUpgrade(t *testing.T, upgrade func()) {
	t.Helper()
	apply(t, "wizard.yaml")
	awaitReady(t, "default", "wizard")
	before := driverSession(t, "wizard")
	l := newLoad(t)
	l.run(t, upgrade)
	took := l.requireSteady(t)
	slices.Sort(took)
	t.Logf("%d pods, one each %s: fastest %s, median %s, slowest %s from the request to Ready", len(took), loadInterval,
		took[0].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	events := kubectl(t, "get", "events", "--field-selector=reason=FailedMount", "--output=jsonpath={range .items[*]}{.involvedObject.name} {.message}{\"\\n\"}{end}")
	var inGap []string
	for line := range strings.Lines(events) {
		switch {
		case !strings.HasPrefix(line, "load-"):
		// No instance has the socket, or the old one closes a connection. The kubelet calls again.
		case strings.Contains(line, "code = Unavailable desc = connection error"),
			strings.Contains(line, "code = Unavailable desc = error reading from server"):
			inGap = append(inGap, line)
		default:
			t.Errorf("a pod has the event of a failure: %s", line)
		}
	}
	if len(inGap) > mostInGap {
		t.Errorf("%d pods were mounted between two instances: %q", len(inGap), inGap)
	}
	if after := driverSession(t, "wizard"); !after.isSame(before) {
		t.Errorf("the running pod's token was %+v and is %+v", before, after)
	}
	if t.Failed() {
		t.Logf("the new driver says\n%s", driverLogs(t))
	}
}

// session is the Vault token of a pod, as its driver tells.
type session struct {
	Since  time.Time
	Logins int
}

func driverSession(t *testing.T, pod string) session {
	t.Helper()
	output := kubectl(t, "exec", "--namespace=vaultmount", currentDriver(t), "--", "/vaultmount", "volumes", pod, "--output=json")
	var volumes []struct{ Session session }
	if err := json.Unmarshal([]byte(output), &volumes); err != nil || len(volumes) != 1 {
		t.Fatalf("the driver tells of %s: %v\n%s", pod, err, output)
	}
	return volumes[0].Session
}

// isSame allows for the clocks by which times pass from one process to the next.
func (s session) isSame(other session) bool {
	return s.Logins == other.Logins && s.Since.Sub(other.Since).Abs() < time.Second
}

// currentDriver is the driver's pod that is ready: of two that overlap, the one that
// has the volumes.
func currentDriver(t *testing.T) string {
	t.Helper()
	var ready []string
	eventually(t, "one pod of the driver is ready", func() bool {
		pods := kubectl(t, "get", "pods", "--namespace=vaultmount", "--selector=app.kubernetes.io/name=vaultmount",
			`--output=jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}pod/{.metadata.name}{"\n"}{end}`)
		ready = strings.Fields(pods)
		return len(ready) == 1
	})
	return ready[0]
}
