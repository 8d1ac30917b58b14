package attacks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// requestCPU is what a request about any pod may take.
const requestCPU = 100 * time.Millisecond

// annotationsSize is how much an API server lets a pod have.
const annotationsSize = 256 << 10

// checkRandomVolumes has pods drawn at random published.
func checkRandomVolumes(t *testing.T, a *arena) {
	s := a.newStage(t)
	random := rig.NewRandom(t)
	d := newDice(t, random)
	d.forEach(t, "random volumes", func() (map[string]string, time.Duration) {
		attributes := d.attributes()
		if random.IntN(2) == 0 {
			attributes = d.annotations()
			for _, key := range []string{"role", "auth-type"} {
				attributes[key] = rig.Absent
			}
		}
		request := s.tenantRequest(t, attributes)
		before := cpuTime(t, s.Process)
		if s.Publish(t.Context(), request) == nil {
			if err := s.Unpublish(t.Context(), request); err != nil {
				t.Errorf("%.50q: %v", attributes, err)
			}
		}
		return attributes, cpuTime(t, s.Process) - before
	})
	if kills := s.memory.OOMKills(t); kills > 0 || !s.isAlive() {
		t.Errorf("the driver goes on: %t; %d processes of its group were killed for memory", s.isAlive(), kills)
	}
}

// The webhook is asked about pods drawn at random.
func TestRandomReviews(t *testing.T) {
	h := startHook(t, memoryLimit(t, "webhook/webhook.yaml"))
	d := newDice(t, rig.NewRandom(t))
	d.forEach(t, "random reviews", func() (map[string]string, time.Duration) {
		annotations := map[string]string{}
		for key, value := range d.annotations() {
			annotations[strings.TrimPrefix(key, annotationPrefix)] = value
		}
		body := reviewOf(t, tenant, annotations)
		before := cpuTime(t, h.Process)
		if _, err := h.send(context.WithoutCancel(t.Context()), body); err != nil {
			t.Errorf("%.500s: %v", fmt.Sprintf("%.50q", annotations), err)
		}
		return annotations, cpuTime(t, h.Process) - before
	})
	if kills := h.memory.OOMKills(t); kills > 0 {
		t.Errorf("%d processes of the webhook's group were killed for memory", kills)
	}
}

// dice draws pods from what the fuzz corpora and the golden cases hold.
type dice struct {
	random              *rand.Rand
	keys, names, values []string
}

func newDice(t *testing.T, random *rand.Rand) *dice {
	t.Helper()
	d := &dice{random: random}
	for _, path := range glob(t, "driver/*/testdata/fuzz/*/*") {
		for _, literal := range regexp.MustCompile(`(?m)^(?:string|\[\]byte)\((.*)\)$`).FindAllStringSubmatch(read(t, path), -1) {
			text, err := strconv.Unquote(literal[1])
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			d.values = append(d.values, text)
		}
	}
	for _, path := range glob(t, "driver/injector/testdata/*/pod.yaml") {
		var pod corev1.Pod
		if err := yaml.Unmarshal([]byte(read(t, path)), &pod); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for key, value := range pod.Annotations {
			d.names, d.values = append(d.names, key), append(d.values, value)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+/?)[^`]*` \\|").FindAllStringSubmatch(read(t, inCheckout(t, "driver/volume/README.md")), -1) {
		d.keys = append(d.keys, row[1])
	}
	for _, list := range []*[]string{&d.keys, &d.names, &d.values} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
		if len(*list) < 20 {
			t.Fatalf("there are only %q to draw from", *list)
		}
	}
	return d
}

// forEach draws pods, and requires that none takes more than its CPU time.
func (d *dice) forEach(t *testing.T, what string, draw func() (map[string]string, time.Duration)) {
	t.Helper()
	tried, over := 0, 0
	var most time.Duration
	for ; tried < scaled(100, 1000) && over < 5; tried++ {
		drawn, took := draw()
		most = max(most, took)
		if took > requestCPU {
			over++
			t.Errorf("%s of CPU time for %.500s", took, fmt.Sprintf("%.50q", drawn))
		}
	}
	tally.Line{Item: what, Tried: tried, Lost: over, Measured: fmt.Sprintf("at most %s of CPU time", most.Round(time.Millisecond))}.Record(t)
}

// annotations are those of a pod that asks.
func (d *dice) annotations() map[string]string {
	all := map[string]string{
		annotationPrefix + "agent-inject": "true", annotationPrefix + "role": tenant, annotationPrefix + "auth-type": "jwt", annotationPrefix + "auth-path": "auth/jwt",
		annotationPrefix + "agent-inject-secret-a": "internal/data/tenant/db",
	}
	d.fill(all, func() string { return d.pick(d.names) })
	return all
}

// attributes are those of a volume that somebody wrote by hand.
func (d *dice) attributes() map[string]string {
	all := map[string]string{}
	d.fill(all, func() string {
		key := d.pick(d.keys)
		if strings.HasSuffix(key, "/") {
			key += d.pick([]string{"a", "b", "c/d", d.pick(d.values)})
		}
		return key
	})
	return all
}

func (d *dice) fill(all map[string]string, key func() string) {
	left := annotationsSize
	for range 1 << d.random.IntN(11) {
		k, v := d.mutate(key()), d.mutate(d.mutate(d.pick(d.values)))
		if d.random.IntN(4) > 0 {
			k = key()
		}
		if left -= len(k) + len(v); left < 0 {
			return
		}
		all[k] = v
	}
}

func (d *dice) pick(list []string) string { return list[d.random.IntN(len(list))] }

// mutate changes most texts a little, and some much.
func (d *dice) mutate(text string) string {
	at := d.random.IntN(len(text) + 1)
	switch d.random.IntN(12) {
	case 0:
		return text[:at]
	case 1:
		return text[:at] + string(rune(d.random.IntN(1<<16))) + text[at:]
	case 2:
		return text[:at] + d.pick(d.values) + text[at:]
	case 3:
		return strings.Repeat(text, 1<<d.random.IntN(12))
	case 4:
		return text[:at] + strings.Repeat(d.pick([]string{"{{", "(", "-x", "/a", "é", "{{if 1}}", " | "}), 1<<d.random.IntN(15)) + text[at:]
	case 5:
		return text + strconv.Itoa(d.random.IntN(1000))
	}
	return text
}

// glob looks in the checkout.
func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(inCheckout(t, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v, %v", pattern, paths, err)
	}
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}
