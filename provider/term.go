package provider

import (
	"time"

	render "github.com/vaultmount/vaultmount/provider/template"
)

// term is how long something from Vault is good that can be prolonged: a lease,
// or a token.
type term struct {
	// Full is the length at first.
	Full time.Duration
	// Expires is zero for what does not end.
	Expires time.Time
	// Renewable is false once Vault prolongs it no further.
	Renewable bool
}

func newTerm(now time.Time, length time.Duration, renewable bool) term {
	if length <= 0 {
		return term{}
	}
	return term{Full: length, Expires: now.Add(length), Renewable: renewable}
}

// capped is the share of the first length below which a renewal shows that the
// end is near: Vault grants less only for what may not last longer.
const capped = 0.9

// prolonged is the term after a renewal that granted length.
func (t term) prolonged(now time.Time, length time.Duration, renewable bool) term {
	if length <= 0 {
		t.Renewable = false
		return t
	}
	return term{
		Full:      t.Full,
		Expires:   now.Add(length),
		Renewable: renewable && float64(length) >= capped*float64(t.Full),
	}
}

func (t term) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// The last quarter of a term that cannot be prolonged is for replacing it, but no
// more than an hour: that is as long as Vault may be away.
const (
	shortestLead, longestLead = 0.25, 0.3
	enoughLead                = time.Hour
)

// due is when a term is to be renewed, or replaced where it cannot be; zero for
// never. A third of what remains leaves time for several more attempts.
func (t term) due(now time.Time, r random) time.Time {
	if t.Expires.IsZero() {
		return time.Time{}
	}
	remaining := max(t.Expires.Sub(now), 0)
	if t.Renewable {
		return now.Add(r.part(remaining, 0.75/3, 1.0/3))
	}
	lead := min(r.part(t.Full, shortestLead, longestLead), r.part(enoughLead, 1, longestLead/shortestLead))
	return now.Add(max(remaining-lead, 0))
}

// leaseOf is the term of an answer's lease; none has no end.
func leaseOf(answer render.Value, now time.Time) term {
	if answer.Secret == nil || answer.Secret.LeaseID == "" {
		return term{}
	}
	return newTerm(now, time.Duration(answer.Secret.LeaseDuration)*time.Second, answer.Secret.Renewable)
}
