package provider

import (
	"errors"
	"testing"
	"time"
)

// The Secret of one volume of a pod gets certificates that cannot be used, or a volume
// that has such ones never opens. The pod's other volumes go on: its token is renewed,
// replaced, and its leases are.
func TestCertificatesOfOneVolumeAreNoneOfTheOthers(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*bench, Request){
		"from a republish on": func(b *bench, other Request) {
			b.open(other)
			other.Endpoint.CACert = "no certificate"
			b.Republish(other)
		},
		"at each republish": func(b *bench, other Request) {
			b.open(other)
			other.Endpoint.CACert = "no certificate"
			for range 10 {
				b.pass(time.Minute, func() {})
				b.Republish(other)
			}
		},
		"of a volume that does not open": func(b *bench, other Request) {
			other.Endpoint.CACert = "no certificate"
			if _, err := b.Open(b.t.Context(), other); !errors.Is(err, ErrInvalid) {
				b.t.Fatalf("got %v", err)
			}
		},
		"of a volume that is closed": func(b *bench, other Request) {
			b.open(other)
			other.Endpoint.CACert = "no certificate"
			b.Republish(other)
			b.Close("other")
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vault.change(func() {
				b.vault.tokenTTL, b.vault.tokenMax = 30*time.Minute, 2*time.Hour
				b.vault.leaseTTL, b.vault.leaseMax = 10*time.Minute, 24*time.Hour
			})
			b.open(b.request("good", databaseTemplate))
			spoil(b, b.request("other", staticTemplate))
			b.pass(5*time.Hour, func() { b.requireOpens("good") })
			for _, v := range b.Volumes() {
				if v.Session.Err != nil || v.VolumeID == "good" && v.Err != nil {
					t.Errorf("of %s, the error is %v, and its session's %v", v.VolumeID, v.Err, v.Session.Err)
				}
			}
			if got := b.vault.count("auth/jwt/login"); got < 3 {
				t.Errorf("%d logins, so few that nothing was tested", got)
			}
		})
	}
}

// Certificates that cannot be used are not the reason that is told, nor waited for, in
// an outage.
func TestOutageOfOneWayOfTwo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good, other := b.request("good", staticTemplate), b.request("other", staticTemplate)
	b.open(good)
	b.open(other)
	other.Endpoint.CACert = "no certificate"
	b.Republish(other)
	b.vault.change(func() { b.vault.down = true })
	b.pass(30*time.Minute, func() {})
	if err := b.Volumes()[0].Session.Err; !errors.Is(err, ErrUnavailable) {
		t.Errorf("the session's error is %v", err)
	}
	b.vault.change(func() { b.vault.down = false })
	b.pass(time.Minute, func() {})
	if err := b.Volumes()[0].Session.Err; err != nil {
		t.Errorf("once Vault is back, the session's error is %v", err)
	}
}
