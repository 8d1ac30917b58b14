package provider

import (
	"errors"
	"time"
)

// trouble is what keeps something from being refreshed, and when to try again.
type trouble struct {
	err      error
	failures int
	retry    time.Time
}

// add notes a failure, and reports whether it is the first: the one to log. A
// retry comes before expiry, if there is one.
func (t *trouble) add(err error, now, expiry time.Time, chance random) (first bool) {
	first = t.err == nil
	t.err = err
	t.failures++
	t.retry = now.Add(backoff(t.failures, longestFor(err), now, expiry, chance))
	return first
}

// over reports whether there was any.
func (t *trouble) over() bool {
	was := t.err != nil
	*t = trouble{}
	return was
}

// longestFor is the longest wait after an error: what may pass by itself is tried
// more often than what somebody has to mend.
func longestFor(err error) time.Duration {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotRendered) {
		return awayBackoff
	}
	return longestBackoff
}
