// Package rounds looks after something again and again, for what nobody announces.
// It knows nothing of what is looked after.
package rounds

import (
	"sync"
	"time"
)

// Rounds are looks at an interval, one at a time.
type Rounds struct {
	ending chan struct{}
	ended  sync.WaitGroup
}

// Start looks each interval from now on, until Stop.
func Start(interval time.Duration, look func()) *Rounds {
	r := &Rounds{ending: make(chan struct{})}
	r.ended.Go(func() { r.run(interval, look) })
	return r
}

func (r *Rounds) run(interval time.Duration, look func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-r.ending:
			return
		case <-tick.C:
			look()
		}
	}
}

// Stop returns when the last look is over. It is called once.
func (r *Rounds) Stop() {
	close(r.ending)
	r.ended.Wait()
}
