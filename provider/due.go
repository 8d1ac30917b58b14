package provider

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/hashicorp/vault/api"

	render "github.com/vaultmount/vaultmount/provider/template"
)

// random returns a number from 0 up to, but not including, 1.
type random func() float64

// between is a number from low to high.
func (r random) between(low, high float64) float64 { return low + (high-low)*r() }

// part is a part, from low to high, of a time.
func (r random) part(whole time.Duration, low, high float64) time.Duration {
	return time.Duration(float64(whole) * r.between(low, high))
}

// dueAnew is when an answer that came now is to be asked for again, if it has no
// lease that can be renewed; zero for never. The rules are consul-template's,
// with two differences: a KV version 1 secret is read at the interval like one of
// version 2, unless it has a shorter TTL of its own; and what a template wrote to
// Vault is written again only when the answer ends.
func (r RefreshPolicy) dueAnew(query render.Dependency, answer render.Value, now time.Time, chance random) time.Time {
	if r.Disabled {
		return time.Time{}
	}
	if wait, ok := r.untilRotation(answer.Secret, chance); ok {
		return now.Add(wait)
	}
	life, ends := lifeOf(answer.Secret, now)
	anew := r.anew(life, chance)
	switch {
	case !isStatic(query, answer) && !ends:
		return time.Time{}
	case ends && answer.Secret.LeaseID != "":
		return now.Add(max(anew, shortestRest))
	case !isStatic(query, answer):
		// What ends by the clock looks over at once where the clock is wrong.
		return now.Add(max(anew, MinInterval))
	case ends:
		return now.Add(max(min(anew, r.interval(chance)), MinInterval))
	}
	return now.Add(r.interval(chance))
}

// shortestRest keeps what Vault grants for no time at all from being asked for
// without a pause.
const shortestRest = time.Second

// notBefore is a time, but zero stays never.
func notBefore(earliest, t time.Time) time.Time {
	if !t.IsZero() && t.Before(earliest) {
		return earliest
	}
	return t
}

// isStatic tells what may be read at any time, since reading it creates nothing.
func isStatic(query render.Dependency, answer render.Value) bool {
	return query.Reads() && (answer.Secret == nil || answer.Secret.LeaseID == "")
}

// interval is jittered like consul-template's, which treats a static secret as a
// lease of the interval's length.
func (r RefreshPolicy) interval(chance random) time.Duration {
	return chance.part(r.StaticInterval, 0.85, 0.95)
}

// anew is the part of a life after which to ask again, so many nodes not at once.
func (r RefreshPolicy) anew(life time.Duration, chance random) time.Duration {
	const jitter = 0.05
	part := r.LeaseRenewalThreshold + chance.between(-jitter, jitter)
	if part <= 0 || part > 1 {
		part = r.LeaseRenewalThreshold
	}
	// Whatever the threshold is, a new secret must be there before the old one ends.
	lead := min(life/4, 5*time.Second)
	return min(time.Duration(part*float64(life)), life-lead)
}

// lifeOf is how long a secret is good that has no renewable lease, if it ends.
func lifeOf(secret *api.Secret, now time.Time) (life time.Duration, ends bool) {
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
			return certificateLife(secret.Data["certificate"], time.Unix(expiry, 0).Sub(now)), true
		}
	case secret.Data["secret_id"] != nil:
		seconds = number(secret, "secret_id_ttl")
	default:
		// What KV version 1 makes of a key "ttl", or the longest that it knows.
		seconds = int64(secret.LeaseDuration)
	}
	return time.Duration(seconds) * time.Second, seconds > 0
}

// backdated is what Vault puts the start of a certificate into the past by default, so
// that a clock that is behind takes it (not_before_duration of the role).
const backdated = 30 * time.Second

// certificateLife is from the start to the end of a certificate that was just issued. So it
// does not matter which time the node's clock shows. One that is not in PEM form has left
// what remains by that clock.
func certificateLife(certificate any, remaining time.Duration) time.Duration {
	text, _ := certificate.(string)
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return max(remaining, 0)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return max(remaining, 0)
	}
	life := parsed.NotAfter.Sub(parsed.NotBefore)
	return max(life-backdated, life/2)
}

// untilRotation is the wait for what Vault itself rotates, such as the password of
// a static database role: until its TTL is over and a second more, since the TTL
// counts whole seconds.
func (r RefreshPolicy) untilRotation(secret *api.Secret, chance random) (time.Duration, bool) {
	if secret == nil || secret.LeaseID != "" || secret.Data["ttl"] == nil {
		return 0, false
	}
	if secret.Data["rotation_period"] == nil && secret.Data["rotation_schedule"] == nil {
		return 0, false
	}
	const cushion = time.Second
	ttl := max(time.Duration(number(secret, "ttl"))*time.Second, 0)
	return ttl + cushion + chance.part(cushion, 0, 1), true
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
