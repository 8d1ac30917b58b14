package provider

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/vault"
)

// jitter returns a number from 0 up to, but not including, 1. It spreads the requests of
// many nodes.
type jitter func() float64

func (j jitter) between(low, high float64) float64 { return low + (high-low)*j() }

// scale returns a part of a duration, from low to high.
func (j jitter) scale(whole time.Duration, low, high float64) time.Duration {
	return time.Duration(float64(whole) * j.between(low, high))
}

// bootTime is a time since the node booted, suspended time included; 0 is never. Records
// hold the same times: they do not outlive the boot, and nobody sets this clock.
type bootTime = time.Duration

// lease is how long a token, or a secret with a lease id, is valid.
type lease struct {
	InitialTTL time.Duration
	ExpireTime bootTime
	Renewable  bool // false once Vault renews it no further
}

func newLease(now bootTime, ttl time.Duration, renewable bool) lease {
	if ttl <= 0 {
		return lease{}
	}
	return lease{InitialTTL: ttl, ExpireTime: now + ttl, Renewable: renewable}
}

// leaseOf returns the lease of a value that was requested at a time.
func leaseOf(value template.Value, requested bootTime) lease {
	if !isLeased(value) {
		return lease{}
	}
	return newLease(requested, time.Duration(value.Secret.LeaseDuration)*time.Second, value.Secret.Renewable)
}

func isLeased(value template.Value) bool { return value.Secret != nil && value.Secret.LeaseID != "" }

// maxTTLRatio is the part of the initial TTL below which a renewal shows that the max TTL
// is near: Vault grants less only then.
const maxTTLRatio = 0.9

// renewed returns the lease after a renewal that granted ttl.
func (l lease) renewed(now bootTime, ttl time.Duration, renewable bool) lease {
	if ttl <= 0 {
		l.Renewable = false
		return l
	}
	l.ExpireTime = now + ttl
	l.Renewable = renewable && float64(ttl) >= maxTTLRatio*float64(l.InitialTTL)
	return l
}

func (l lease) isExpired(now bootTime) bool { return l.ExpireTime != 0 && now >= l.ExpireTime }

// What cannot be renewed is replaced in the last quarter of its TTL, but not more than
// maxLead before the end: a Vault that is away for an hour costs no credentials.
const (
	minLeadPart, maxLeadPart = 0.25, 0.3
	maxLead                  = time.Hour
)

// due returns when the lease is to be renewed, or replaced if it cannot be. After a third
// of what remains, there is time for more attempts.
func (l lease) due(now bootTime, j jitter) bootTime {
	if l.ExpireTime == 0 {
		return 0
	}
	remaining := max(l.ExpireTime-now, 0)
	if l.Renewable {
		return now + j.scale(remaining, 0.75/3, 1.0/3)
	}
	lead := min(j.scale(l.InitialTTL, minLeadPart, maxLeadPart), j.scale(maxLead, 1, maxLeadPart/minLeadPart))
	return now + max(remaining-lead, 0)
}

// minRest is the shortest time between two requests for what Vault grants for no time.
const minRest = time.Second

// fetchAfter returns the time after which a value is fetched again, if it has no renewable
// lease; 0 for never. The rules are consul-template's, with two differences. A secret
// of KV version 1 is read at the interval like one of version 2, unless its own TTL is
// shorter. What a template writes is written again only before its response expires.
func (p RefreshPolicy) fetchAfter(dep template.Dependency, value template.Value, today time.Time, j jitter) time.Duration {
	if p.Disabled {
		return 0
	}
	if wait, ok := staticRoleRotation(value.Secret, j); ok {
		return wait
	}
	ttl, ends := ttlOf(value.Secret, today)
	again := p.beforeEnd(ttl, j)
	switch {
	case !isStatic(dep, value) && !ends:
		return 0
	case ends && isLeased(value):
		return max(again, minRest)
	case !isStatic(dep, value):
		// What ends at a date seems to have ended if the node's clock is wrong.
		return max(again, MinInterval)
	case ends:
		return max(min(again, p.interval(j)), MinInterval)
	}
	return p.interval(j)
}

// isStatic reports whether the dependency may be read at any time, since a read creates
// nothing.
func isStatic(dep template.Dependency, value template.Value) bool {
	return dep.Reads() && !isLeased(value)
}

// interval has consul-template's jitter, which treats a static secret as a lease.
func (p RefreshPolicy) interval(j jitter) time.Duration {
	return j.scale(p.StaticInterval, 0.85, 0.95)
}

// beforeEnd returns the part of a TTL after which to fetch again.
func (p RefreshPolicy) beforeEnd(ttl time.Duration, j jitter) time.Duration {
	const spread = 0.05
	part := p.LeaseRenewalThreshold + j.between(-spread, spread)
	if part <= 0 || part > 1 {
		part = p.LeaseRenewalThreshold
	}
	lead := min(ttl/4, 5*time.Second) // whatever the threshold is
	return min(time.Duration(part*float64(ttl)), ttl-lead)
}

// ttlOf returns how long a secret without a renewable lease is valid, if it ends.
func ttlOf(secret *api.Secret, today time.Time) (ttl time.Duration, ends bool) {
	if secret == nil {
		return 0, false
	}
	seconds := int64(0)
	switch {
	case secret.LeaseID != "":
		seconds = int64(secret.LeaseDuration)
	case secret.Auth != nil:
		seconds = int64(secret.Auth.LeaseDuration)
	case secret.Data["certificate"] != nil:
		if expiry := number(secret, "expiration"); expiry > 0 {
			return certificateTTL(secret.Data["certificate"], time.Unix(expiry, 0).Sub(today)), true
		}
	case secret.Data["secret_id"] != nil:
		seconds = number(secret, "secret_id_ttl")
	default:
		// KV version 1 makes it of a key "ttl", or it is the longest that Vault knows.
		seconds = int64(secret.LeaseDuration)
	}
	return time.Duration(seconds) * time.Second, seconds > 0
}

// backdated is how far Vault dates the start of a certificate back by default, for clocks
// that are behind (not_before_duration of the role).
const backdated = 30 * time.Second

// certificateTTL is the lifetime of a certificate that was just issued, whatever time the
// node's clock shows. Without one in PEM form, it is what remains by that clock.
func certificateTTL(certificate any, remaining time.Duration) time.Duration {
	text, _ := certificate.(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return max(remaining, 0)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return max(remaining, 0)
	}
	lifetime := parsed.NotAfter.Sub(parsed.NotBefore)
	return max(lifetime-backdated, lifetime/2)
}

// staticRoleRotation returns the time to the next rotation by Vault, as of a static database
// role: its TTL, and a second more, since Vault counts whole seconds.
func staticRoleRotation(secret *api.Secret, j jitter) (time.Duration, bool) {
	if secret == nil || secret.LeaseID != "" || secret.Data["ttl"] == nil {
		return 0, false
	}
	if secret.Data["rotation_period"] == nil && secret.Data["rotation_schedule"] == nil {
		return 0, false
	}
	ttl := max(time.Duration(number(secret, "ttl"))*time.Second, 0)
	return ttl + time.Second + j.scale(time.Second, 0, 1), true
}

func number(secret *api.Secret, key string) int64 {
	text, ok := secret.Data[key].(json.Number)
	if !ok {
		return 0
	}
	value, err := text.Int64()
	if err != nil {
		return 0
	}
	return value
}

const (
	minBackoff = time.Second
	maxBackoff = 5 * time.Minute
	// maxTransientBackoff is for an outage: the circuit breaker makes attempts cheap, and
	// what ends meanwhile is needed at once.
	maxTransientBackoff = 30 * time.Second
)

// retryState is why something failed, and when to try again.
type retryState struct {
	err      error // nil if it did not fail
	failures int
	until    bootTime // the next attempt waits; a restart ends that
}

// fail notes a failure. The next attempt comes before expiry, unless that is zero or over.
func (r *retryState) fail(err error, now, expiry bootTime, j jitter) {
	r.err = err
	r.failures++
	longest := maxBackoff
	if isTransient(err) {
		longest = maxTransientBackoff
	}
	wait := min(minBackoff<<min(r.failures-1, 16), longest)
	if remaining := expiry - now; expiry != 0 && remaining > 0 {
		wait = max(min(wait, remaining/4), min(wait, minBackoff))
	}
	r.until = now + j.scale(wait, 0.75, 1.25)
}

// retryRecord is a failure in a record.
type retryRecord struct {
	Text     string // as in the log
	Failures int
	Kind     string `json:",omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (r retryState) MarshalJSON() ([]byte, error) {
	return json.Marshal(retryRecord{r.err.Error(), r.failures, kindOf(r.err).name})
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *retryState) UnmarshalJSON(text []byte) error {
	var record retryRecord
	if err := json.Unmarshal(text, &record); err != nil {
		return err
	}
	err := &persistedError{text: record.Text}
	for _, kind := range errorKinds() {
		if kind.name == record.Kind {
			err.kind = kind.err
		}
	}
	*r = retryState{err: err, failures: max(record.Failures, 1)}
	return nil
}

// IsZero lets a record leave out what did not fail.
func (r retryState) IsZero() bool { return r.err == nil }

// persistedError is that of a previous process.
type persistedError struct {
	text string
	kind error // nil for none
}

func (e *persistedError) Error() string { return e.text }
func (e *persistedError) Unwrap() error { return e.kind }

// isTransient reports whether nobody has to do anything about an error.
func isTransient(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRendererUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// errorKind is a group of errors that have one remedy. Its name is for records.
type errorKind struct {
	name string
	err  error
}

// errorKinds are in the order of the lookup: what is denied is refused as well.
func errorKinds() []errorKind {
	return []errorKind{
		{"denied", vault.ErrDenied}, {"refused", ErrRefused}, {"not-found", ErrNotFound}, {"invalid", ErrInvalid}, {"too-large", ErrTooLarge},
		{"template", ErrTemplate}, {"data", ErrData}, {"renderer", ErrRendererUnavailable}, {"unavailable", ErrUnavailable},
		{"deadline", context.DeadlineExceeded},
	}
}

func kindOf(err error) errorKind {
	for _, kind := range errorKinds() {
		if errors.Is(err, kind.err) {
			return kind
		}
	}
	return errorKind{}
}

// SameKind reports whether two errors, which may be nil, have the same remedy: the second
// one is no news then.
func SameKind(before, now error) bool {
	return (before == nil) == (now == nil) && kindOf(before) == kindOf(now)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// earliest returns the first of some times.
func earliest(times ...bootTime) bootTime {
	var first bootTime
	for _, t := range times {
		if first == 0 || t != 0 && t < first {
			first = t
		}
	}
	return first
}
