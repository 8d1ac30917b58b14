package injector

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// The driver's bounds, which its README tells. It fits what lies outside.
const (
	shortestBackoff, longestBackoff = 100 * time.Millisecond, time.Minute
	shortestTimeout, longestTimeout = 5 * time.Second, 100 * time.Second
	mostRetries                     = 10
	shortestInterval                = 10 * time.Second
)

// emit makes an attribute of a value as it is. The driver's own parser checks it
// together with the rest of the volume.
func emit(key string) treatment {
	return func(r *reading, name, value string) {
		r.attributes[key] = attribute{value, name}
	}
}

// emitWithin is for lengths of time.
func emitWithin(key string, shortest, longest time.Duration) treatment {
	return func(r *reading, name, value string) {
		emit(key)(r, name, value)
		if _, err := strconv.ParseUint(value, 10, 64); err == nil {
			value += "s"
		}
		length, err := time.ParseDuration(value)
		if err == nil && length > 0 && (length < shortest || length > longest) {
			r.warn(name, "the driver fits %s into its bounds; write a value %s", value, bounds(shortest, longest))
		}
	}
}

func bounds(shortest, longest time.Duration) string {
	if longest == math.MaxInt64 {
		return fmt.Sprintf("of at least %s", shortest)
	}
	return fmt.Sprintf("from %s to %s", shortest, longest)
}

// emitInterval has no upper bound: who never wants a secret read again may say so.
func emitInterval(r *reading, name, value string) {
	emitWithin("static-secret-render-interval", shortestInterval, math.MaxInt64)(r, name, value)
}

func emitRetries(r *reading, name, value string) {
	retries, err := strconv.ParseInt(value, 0, 64)
	if err != nil || retries < 0 {
		r.refuse(name, "%s would be without a limit; write a number from 0 to %d", value, mostRetries)
		return
	}
	emit(name)(r, name, strconv.FormatInt(retries, 10))
	if retries > mostRetries {
		r.warn(name, "the driver makes at most %d retries; write a number from 0 to %d", mostRetries, mostRetries)
	}
}
