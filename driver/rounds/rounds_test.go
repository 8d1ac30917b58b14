package rounds

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRoundsLookUntilTheyAreStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks, during := 0, false
		r := Start(5*time.Second, func() {
			looks, during = looks+1, true
			time.Sleep(time.Second) // of the bubble's clock
			during = false
		})
		time.Sleep(15*time.Second + time.Millisecond) // the third look has begun
		r.Stop()
		if looks != 3 || during {
			t.Errorf("%d looks, and one goes on: %v; want 3, that are over", looks, during)
		}
		time.Sleep(time.Minute)
		if looks != 3 {
			t.Errorf("%d looks after the end", looks)
		}
	})
}
