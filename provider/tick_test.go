package provider

import (
	"testing"
	"time"
)

func TestTick(t *testing.T) {
	t.Parallel()
	at := func(seconds ...int) []time.Duration {
		var all []time.Duration
		for _, s := range seconds {
			all = append(all, time.Duration(s)*time.Second)
		}
		return all
	}
	tests := map[string]struct {
		resumed     bool
		republishes []time.Duration
		want        []time.Duration // when static secrets are read
	}{
		"the kubelet's own pace":                {false, at(60, 130, 220, 283), nil},
		"the kubelet's shortest pauses":         {false, at(60, 118, 178, 238), nil},
		"the pod's start":                       {false, at(1, 2, 4, 9), nil},
		"an event":                              {false, at(70, 85), at(85)},
		"an event soon after the start":         {false, at(1, 20), at(20)},
		"an event just before the pace":         {false, at(70, 127), at(127)},
		"an event as late as the pace":          {false, at(70, 150), nil},
		"a second event after such a one":       {false, at(70, 150, 153), at(153)},
		"a second event after one that has had": {false, at(70, 100, 103), at(100, 110)},
		"after an event, the pace":              {false, at(70, 85, 150, 220), at(85)},
		"a crash loop":                          {false, at(20, 21, 22, 23, 40, 41, 60), at(20, 30, 40, 50, 60)},
		"after a restart of the driver":         {true, at(5, 70), nil},
		"an event after such a restart":         {true, at(5, 15), at(15)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ticks := ticks{opened: start, read: start}
			if test.resumed {
				ticks.opened, ticks.read = time.Time{}, time.Time{}
			}
			var planned time.Time
			var got []time.Duration
			look := func(now time.Time) {
				if !planned.IsZero() && !planned.After(now) {
					if !ticks.take(planned) {
						t.Errorf("planned for %s, it is not taken", planned.Sub(start))
					}
					got = append(got, planned.Sub(start))
					planned = time.Time{}
				}
			}
			for _, after := range test.republishes {
				now := start.Add(after)
				look(now)
				if at := ticks.tick(now); !at.IsZero() {
					planned = earlier(planned, at)
				}
				look(now)
			}
			look(start.Add(time.Hour))
			if len(got) != len(test.want) {
				t.Fatalf("read at %v, want %v", got, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("read at %v, want %v", got, test.want)
				}
			}
		})
	}
}

// Whenever somebody annotates a pod twice, secrets are read after the second time,
// and at most ten seconds after it.
func TestSecondOfTwoEventsIsNeverLost(t *testing.T) {
	t.Parallel()
	for phase := time.Duration(0); phase < 90*time.Second; phase += time.Second {
		for apart := time.Second; apart <= 30*time.Second; apart += time.Second {
			ticks := ticks{opened: start, read: start}
			resync := start.Add(70 * time.Second)
			ticks.tick(resync)
			first := resync.Add(phase)
			if at := ticks.tick(first); !at.IsZero() {
				ticks.take(at)
			}
			second := first.Add(apart)
			at := ticks.tick(second)
			if at.Before(second) || at.After(second.Add(eventRest)) || !ticks.take(at) {
				t.Fatalf("%s after a resync, and %s after that, secrets are read at %s", phase, apart, at)
			}
		}
	}
}

// Annotating a pod makes the kubelet publish again, and the secret is there at
// once; what reading would create is left alone.
func TestEventReadsStaticSecrets(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate, `{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`)
	b.open(r)
	b.pass(70*time.Second, func() {})
	b.Republish(r)
	b.settle()
	b.requireCount("kv/static", 1)
	b.vault.change(func() { b.vault.static = "second" })
	b.pass(20*time.Second, func() {})
	b.Republish(r)
	b.settle()
	b.requireContent("v", "second|vault:v1:2")
	b.requireCount("kv/static", 2)
	b.requireCount("transit/encrypt/app", 1)
}

// The audit test of ten hours, with a kubelet at its usual pace.
func TestRepublishesCostNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.request("v", staticTemplate)
	b.open(r)
	const hours = 10
	for passed := time.Duration(0); passed < hours*time.Hour; {
		pause := 60*time.Second + time.Duration(passed.Nanoseconds()%31)*time.Second
		b.pass(pause, func() {})
		b.Republish(r)
		passed += pause
	}
	if got := b.vault.count("kv/static"); got < hours*126/10 || got > hours*142/10 {
		t.Errorf("%d reads", got)
	}
	b.requireCount("auth/jwt/login", 1)
}

// An event whose refresh did not come to its end is not forgotten, and the next
// attempt need not wait for the rest between two events.
func TestTickAgain(t *testing.T) {
	t.Parallel()
	ticks := ticks{opened: start, read: start}
	at := start.Add(70 * time.Second)
	ticks.tick(start.Add(60 * time.Second))
	ticks.tick(at)
	if !ticks.take(at) || ticks.take(at) {
		t.Error("an event asks once")
	}
	ticks.again()
	if !ticks.take(at.Add(firstBackoff)) {
		t.Error("the event is forgotten")
	}
}
