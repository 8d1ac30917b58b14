package volume

import (
	"fmt"
	"math"
	"time"
)

// MaxRetries is the largest number of retries of a request. The driver uses it in place
// of a larger one.
const MaxRetries = 10

// Range is what the driver allows for a duration. It clamps other values, so that one
// volume does not keep a call of the kubelet for longer than its two minutes and does not
// overload Vault.
type Range struct {
	Min, Max time.Duration
}

// Backoffs is the range of auth-min-backoff and auth-max-backoff.
func Backoffs() Range { return Range{100 * time.Millisecond, time.Minute} }

// ClientTimeouts is the range of client-timeout.
func ClientTimeouts() Range { return Range{5 * time.Second, 100 * time.Second} }

// StaticIntervals is the range of static-secret-render-interval. It has no maximum: a
// volume may ask that a secret is never read again.
func StaticIntervals() Range { return Range{10 * time.Second, math.MaxInt64} }

// Clamp returns the duration nearest to d in the range.
func (r Range) Clamp(d time.Duration) time.Duration { return min(max(d, r.Min), r.Max) }

// String implements fmt.Stringer.
func (r Range) String() string {
	if r.Max == math.MaxInt64 {
		return fmt.Sprintf("of at least %s", r.Min)
	}
	return fmt.Sprintf("from %s to %s", r.Min, r.Max)
}
