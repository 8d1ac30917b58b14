package attacks

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/test/rig"
)

// victimTemplate is what most pods have.
const victimTemplate = `{{ with secret "internal/data/victim/db" }}{{ .Data.data.password }}{{ end }}`

// victimProgram is a template that a process of its own runs, for some 50 ms if the
// tests are not in small.
func victimProgram() string {
	return fmt.Sprintf(`{{ range loop %d }}{{ $x := sprig_until 1000 }}{{ end }}`, scaled(300, 2500)) + victimTemplate
}

// victims are pods that were started.
type victims struct {
	tried, failed int
	err           error // of the first that failed
	times         []time.Duration
	controls      []time.Duration // of those that were started where nobody attacks
}

// p99 is the time within which 99 of 100 have started. In small there are too few for
// that: one that meets a busy machine would decide, so that it is 9 of 10.
func (v *victims) p99() time.Duration        { return p99(v.times) }
func (v *victims) controlP99() time.Duration { return p99(v.controls) }

func p99(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[len(times)*scaled(90, 99)/100]
}

// startMany starts pods one after the other, while nobody attacks.
func startMany(t *testing.T, count int, start func() (time.Duration, error)) *victims {
	t.Helper()
	v := &victims{}
	for range count {
		took, err := start()
		if err != nil {
			t.Fatalf("without an attack, a pod does not start: %v", err)
		}
		v.times = append(v.times, took)
	}
	return v
}

// startBeside starts count pods and more until enough says so, one after the other,
// in turns with control. It gives up when five in a row have failed.
func startBeside(t *testing.T, count int, start, control func() (time.Duration, error), enough func() bool) *victims {
	t.Helper()
	v := &victims{}
	for row := 0; row < 5 && (v.tried < count || !enough()); {
		v.tried++
		took, err := start()
		v.times = append(v.times, took)
		if row++; err == nil {
			row = 0
		} else {
			v.failed++
			v.err = cmp.Or(v.err, err)
		}
		if took, err = control(); err != nil {
			t.Errorf("where nobody attacks, a pod does not start: %v", err)
			return v
		}
		v.controls = append(v.controls, took)
	}
	return v
}

// startVictim starts a pod, and ends it.
func (s *stage) startVictim(t *testing.T, template string) (time.Duration, error) {
	t.Helper()
	request := s.request(t, victim, map[string]string{"template/a": template})
	start := time.Now()
	err := s.Publish(t.Context(), request)
	took := time.Since(start)
	if err != nil {
		return took, err
	}
	content, err := os.ReadFile(rig.VolumeFile(request, "a"))
	if err != nil {
		return took, err
	}
	if string(content) != rig.Password {
		return took, fmt.Errorf("the file holds %q", content)
	}
	return took, s.Unpublish(t.Context(), request)
}

// refreshInterval is the shortest that a volume may ask for.
const refreshInterval = 10 * time.Second

// refreshWatch looks at a volume of the victim whose file changes with each refresh.
// A nil one looks at nothing: in small there is none, since it takes intervals.
type refreshWatch struct {
	stop   chan struct{}
	latest chan time.Duration
}

func (s *stage) watchRefreshes(t *testing.T) *refreshWatch {
	t.Helper()
	request := s.request(t, victim, map[string]string{
		"static-secret-render-interval": refreshInterval.String(),
		"template/a":                    `{{ with secret "auth/token/lookup-self" }}{{ .Data.ttl }}{{ end }}`,
	})
	s.MustPublish(t, request)
	w := &refreshWatch{stop: make(chan struct{}), latest: make(chan time.Duration, 1)}
	go func() { w.latest <- w.look(request) }()
	return w
}

// look returns the longest time between two changes of the file.
func (w *refreshWatch) look(request *csi.NodePublishVolumeRequest) time.Duration {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	path := rig.VolumeFile(request, "a")
	last, changed := "", time.Now()
	var longest time.Duration
	for {
		content, err := os.ReadFile(path)
		longest = max(longest, time.Since(changed))
		if err == nil && string(content) != last {
			last, changed = string(content), time.Now()
		}
		select {
		case <-w.stop:
			return longest
		case <-tick.C:
		}
	}
}

// atLeast is how long an attack must go on for the watch to see something late.
func (w *refreshWatch) atLeast() time.Duration {
	if w == nil {
		return 0
	}
	return 3*refreshInterval + refreshInterval/2
}

// end returns by how much the latest refresh came late.
func (w *refreshWatch) end() time.Duration {
	if w == nil {
		return 0
	}
	close(w.stop)
	return max(0, <-w.latest-refreshInterval)
}
