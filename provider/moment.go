package provider

import (
	"time"

	"k8s.io/utils/clock"
)

// Boot tells for how long the node has been up. Unlike the wall clock, nobody sets
// that: after an hour it is an hour more. It may be called concurrently.
type Boot interface {
	// Up returns the id of the boot, and the time since, the node's sleep included. Of
	// an empty id nothing is known.
	Up() (id string, since time.Duration)
}

type noBoot struct{}

func (noBoot) Up() (string, time.Duration) { return "", 0 }

// moment is when a record was saved: what the wall clock showed, and how long the
// node had been up. A record that an older program wrote has none.
type moment struct {
	Wall  time.Time
	Boot  string
	Since time.Duration
}

// timeline carries the times of records from one process to the next. In a record
// they are by the wall clock, which somebody may set meanwhile; how much time has
// gone by tells the node's boot.
type timeline struct {
	clock clock.Clock
	boot  Boot
}

func newTimeline(c ProviderConfig) timeline {
	if c.Boot == nil {
		c.Boot = noBoot{}
	}
	return timeline{clock: c.Clock, boot: c.Boot}
}

// stamp makes a record ready to be saved. A time that was made before the wall
// clock was set shows what the old clock would: it is written as what the clock now
// shows, as far ahead as it is.
func (l timeline) stamp(r record) {
	now := l.clock.Now()
	id, since := l.boot.Up()
	_, saved := r.times()
	*saved = &moment{Wall: now, Boot: id, Since: since}
	move(r, now, now)
}

// takeOver makes the times of a record those of this process: as far ahead as they
// were when it was saved, less what has gone by since. They hold a reading of the
// monotonic clock from then on, so the wall clock may be set as well.
func (l timeline) takeOver(r record) {
	now := l.clock.Now()
	id, since := l.boot.Up()
	shown := now // what the clock of the time would show
	if _, saved := r.times(); *saved != nil && id != "" && id == (*saved).Boot && since >= (*saved).Since {
		shown = (*saved).Wall.Add(since - (*saved).Since)
	}
	move(r, shown, now)
}

// move carries the times of a record from a clock that shows one time to a clock
// that shows another. Zero stays never.
func move(r record, from, to time.Time) {
	all, _ := r.times()
	for _, t := range all {
		if !t.IsZero() {
			*t = to.Add(t.Sub(from))
		}
	}
}
