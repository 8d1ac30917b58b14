package provider

import (
	"context"
	"errors"
	"time"

	"github.com/vaultmount/vaultmount/provider/vault"
)

// trouble is what keeps something from being refreshed, and when to try again.
type trouble struct {
	err      error
	failures int
	retry    time.Time
}

// add notes a failure, and reports whether it is of another kind than the one before: one
// to log. A retry comes before expiry, if there is one.
func (t *trouble) add(err error, now, expiry time.Time, chance random) (news bool) {
	news = !SameKind(t.err, err)
	t.err = err
	t.failures++
	t.retry = now.Add(backoff(t.failures, longestFor(err), now, expiry, chance))
	return news
}

// kind is what an operator does something else about than about the other kinds.
type kind struct {
	name string // in records
	err  error
}

// kinds are in the order in which an error is looked up: denied is refused as well.
func kinds() []kind {
	return []kind{
		{"denied", vault.ErrDenied}, {"refused", ErrRefused}, {"not-found", ErrNotFound}, {"invalid", ErrInvalid}, {"too-large", ErrTooLarge},
		{"template", ErrTemplate}, {"data", ErrData}, {"not-rendered", ErrRendererUnavailable}, {"unavailable", ErrUnavailable}, {"late", context.DeadlineExceeded},
	}
}

// kindOf returns the kind of an error, without a name if it is of none.
func kindOf(err error) kind {
	for _, k := range kinds() {
		if errors.Is(err, k.err) {
			return k
		}
	}
	return kind{}
}

// SameKind reports whether an operator has the same to do about two errors, which may be
// nil: the second one is no news then.
func SameKind(before, now error) bool {
	return (before == nil) == (now == nil) && kindOf(before) == kindOf(now)
}

// longestFor is the longest wait after an error: what may pass by itself is tried
// more often than what somebody has to mend.
func longestFor(err error) time.Duration {
	if passes(err) {
		return awayBackoff
	}
	return longestBackoff
}

func passes(err error) bool {
	// The last is of whoever waited for another one to ask.
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRendererUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

const (
	firstBackoff   = time.Second
	longestBackoff = 5 * time.Minute
	// awayBackoff is the longest while Vault does not answer: then the circuit makes
	// attempts cheap, and what runs out in the meantime is missed at once.
	awayBackoff = 30 * time.Second
)

// backoff is the wait after a number of failures, at least one. It doubles up to
// longest, and leaves time for some more attempts before expiry, unless that is
// zero or over.
func backoff(failures int, longest time.Duration, now, expiry time.Time, chance random) time.Duration {
	wait := longest
	if doublings := failures - 1; doublings < 16 {
		wait = min(firstBackoff<<doublings, longest)
	}
	if remaining := expiry.Sub(now); !expiry.IsZero() && remaining > 0 {
		wait = max(min(wait, remaining/4), min(wait, firstBackoff))
	}
	return chance.part(wait, 0.75, 1.25)
}
