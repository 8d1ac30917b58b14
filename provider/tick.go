package provider

import (
	"slices"
	"time"
)

// The kubelet publishes a volume again at any event of its pod, and otherwise 60
// to 90 s after it did last. So what comes sooner is an event: somebody annotated
// the pod, perhaps to have its secrets read now. One that comes as late as the
// kubelet by itself cannot be told from that; a second one soon after it can. How
// often events have an effect is limited, since a crash of a container is one as
// well; and so are the events of a pod's start, which find its secrets just read.
const (
	// eventGap leaves 2 s of the kubelet's shortest pause, since that is between two
	// looks at the pod, and a call may come some loops of 100 ms after its look.
	eventGap  = 58 * time.Second
	eventRest = MinInterval
)

// ticks are the times by which a republish is judged.
type ticks struct {
	opened time.Time // zero if another process opened the volume
	last   time.Time // the republish before, zero for none in this process
	read   time.Time // when an event last had secrets read
	asked  bool      // an event is waiting for its refresh
}

// tick notes a republish. For an event it returns when static secrets are to be
// read, otherwise zero.
func (t *ticks) tick(now time.Time) time.Time {
	previous := t.last
	t.last = now
	if previous.IsZero() {
		previous = t.opened
	}
	if previous.IsZero() || now.Sub(previous) >= eventGap || now.Sub(t.opened) < eventRest {
		return time.Time{}
	}
	t.asked = true
	if earliest := t.read.Add(eventRest); earliest.After(now) {
		return earliest
	}
	return now
}

// take reports whether an event asks for static secrets now.
func (t *ticks) take(now time.Time) bool {
	if !t.asked || now.Before(t.read.Add(eventRest)) {
		return false
	}
	t.asked, t.read = false, now
	return true
}

// again asks once more, since Vault did not answer: the next attempt is for the
// event as well.
func (t *ticks) again() { t.asked, t.read = true, time.Time{} }

func (v *volume) takeTick() bool {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	return v.ticks.take(v.provider.now())
}

func (v *volume) tickAgain() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.ticks.again()
}

// direct takes over where the volume's requests go.
func (v *volume) direct(endpoint Endpoint, options ClientOptions) {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	v.endpoint, v.options = endpoint, options
}

// describe takes over the outputs of a republish where they are other files: an upgrade
// may read the attributes otherwise than the version that opened the volume, and the
// driver expects the files of the last call. It reports whether they are.
func (v *volume) describe(outputs []FileSpec) bool {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if slices.EqualFunc(v.outputs, outputs, func(a, b FileSpec) bool { return a.Token == b.Token && a.Template.Name == b.Template.Name }) {
		return false
	}
	v.described = outputs
	return true
}

// takeOutputs has the next rendering make the files of the last republish. It is for
// whoever has the turn.
func (v *volume) takeOutputs() {
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if v.described == nil {
		return
	}
	v.outputs, v.described, v.stale = v.described, nil, true
	v.outputRecords, v.pods = encodeOutputs(v.outputs)
}

// tick notes a republish, and has an event's refresh done.
func (v *volume) tick() {
	v.mutex.Lock()
	now := v.provider.now()
	at := v.ticks.tick(now)
	v.mutex.Unlock()
	if !at.IsZero() && !v.refresh.Disabled {
		v.provider.schedule.wake(v.task, at)
	}
}
