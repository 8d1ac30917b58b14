package bench

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Series are measurements of one kind.
type Series []time.Duration

// Quantile is the value below which a part of the series lies, by the nearest rank;
// 0 for an empty series.
func (s Series) Quantile(part float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(part*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Median is the quantile of one half.
func (s Series) Median() time.Duration { return s.Quantile(0.5) }

// P99 is the quantile of 99 in 100.
func (s Series) P99() time.Duration { return s.Quantile(0.99) }

// Last is the longest.
func (s Series) Last() time.Duration { return s.Quantile(1) }

// Over is how many times longer a time is than another; 0 if that is none.
func Over(a, b time.Duration) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// Exponent is that of a cost which grows from one size to another like size^exponent:
// 0 for a cost that stays, 1 for one in proportion.
func Exponent(fromSize, toSize int, from, to float64) float64 {
	if from <= 0 || to <= 0 || fromSize <= 0 || toSize <= fromSize {
		return 0
	}
	return math.Log(to/from) / math.Log(float64(toSize)/float64(fromSize))
}

// Inversions is the part of all pairs that were served in another order than they
// came in: 0 for first come, first served, and one half for no order at all. The
// argument holds, in the order of arrival, when each was done.
func Inversions(done []time.Duration) float64 {
	turned, pairs := 0, 0
	for i := range done {
		for j := i + 1; j < len(done); j++ {
			pairs++
			if done[j] < done[i] {
				turned++
			}
		}
	}
	if pairs == 0 {
		return 0
	}
	return float64(turned) / float64(pairs)
}

// Milliseconds shows a time in a table.
func Milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// Microseconds shows a short time in a table.
func Microseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
}

// KiB shows an amount of memory in a table.
func KiB(bytes float64) string { return fmt.Sprintf("%.1f KiB", bytes/(1<<10)) }

// MiB shows a larger amount.
func MiB(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }
