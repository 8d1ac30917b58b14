package certs

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"
)

var (
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	names = []string{"webhook.test", "10.0.0.1"}
)

func trusts(bundle []byte, leaf *tls.Certificate, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}

func step(t *testing.T, s *state, now time.Time, names ...string) (*state, string) {
	t.Helper()
	after, change, err := s.next(now, names)
	if err != nil {
		t.Fatal(err)
	}
	data, err := after.data()
	if err != nil {
		t.Fatal(err)
	}
	read, err := parse(data)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	return read, change
}

// Thirty years, looked at every week: what is served is trusted, also by an API
// server that has not learnt of the last change yet, and also if it is what
// another replica serves that has not learnt of it.
func TestRenewalNeverLosesTrust(t *testing.T) {
	t.Parallel()
	s, err := fresh(start, names)
	if err != nil {
		t.Fatal(err)
	}
	changes := map[string]int{}
	for now := start; now.Before(start.AddDate(30, 0, 0)); now = now.Add(7 * day) {
		before := s
		var change string
		s, change = step(t, s, now, names...)
		changes[change]++
		for _, name := range []string{"webhook.test", "10.0.0.1"} {
			for what, err := range map[string]error{
				"the certificate":                            trusts(s.bundle(), s.leaf, name, now),
				"the old certificate by the new trust":       trusts(s.bundle(), before.leaf, name, now),
				"the new certificate by the trust of before": trusts(before.bundle(), s.leaf, name, now),
			} {
				if err != nil {
					t.Fatalf("%s, after %q: %s: %v", now, change, what, err)
				}
			}
		}
		if left := s.leaf.Leaf.NotAfter.Sub(now); left < leafRenewal-7*day {
			t.Fatalf("%s: the certificate ends in %s", now, left)
		}
	}
	if changes[changeAll] != 0 || changes[changeAuthority] != 3 || changes[changeExpired] < 2 || changes[changeLeaf] < 150 {
		t.Errorf("the changes are %v", changes)
	}
}

// Even if nobody has looked for years.
func TestRenewalAfterALongSleep(t *testing.T) {
	t.Parallel()
	s, err := fresh(start, names)
	if err != nil {
		t.Fatal(err)
	}
	for _, years := range []int{1, 9, 11} {
		now := start.AddDate(years, 6, 0)
		after := s
		for range 3 {
			after, _ = step(t, after, now, names...)
		}
		if err := trusts(after.bundle(), after.leaf, "webhook.test", now); err != nil {
			t.Errorf("after %d years: %v", years, err)
		}
		if _, change := step(t, after, now, names...); change != changeNone {
			t.Errorf("after %d years there is no rest: %s", years, change)
		}
	}
}

func TestNewAuthorityWaitsBeforeItSigns(t *testing.T) {
	t.Parallel()
	s, err := fresh(start, names)
	if err != nil {
		t.Fatal(err)
	}
	now := start.Add(authorityLife - authorityRenewal + time.Second)
	// The serving certificate is made anew shortly before, and lacks a name after.
	leaf, err := issueLeaf(names, s.authorities[0], s.key, now)
	if err != nil {
		t.Fatal(err)
	}
	s = &state{s.authorities, s.key, leaf}
	s, change := step(t, s, now, names...)
	if change != changeAuthority || len(s.authorities) != 2 || !s.issuer().Equal(s.authorities[1]) {
		t.Fatalf("%q: %d authorities", change, len(s.authorities))
	}
	if _, change := step(t, s, now.Add(settle-time.Second), "new.test"); change != changeNone {
		t.Errorf("the new authority signs at once: %s", change)
	}
	s, change = step(t, s, now.Add(settle+time.Second), "new.test")
	if change != changeLeaf || !s.issuer().Equal(s.authorities[0]) {
		t.Errorf("the new authority does not sign after a while: %s", change)
	}
}

// Two replicas of different settings, as during an update, come to rest.
func TestNames(t *testing.T) {
	t.Parallel()
	s, err := fresh(start, []string{"a.test", "old.test"})
	if err != nil {
		t.Fatal(err)
	}
	s, change := step(t, s, start, "b.test", "10.0.0.2")
	if got := namesOf(s.leaf.Leaf); change != changeLeaf || !slices.Equal(got, []string{"10.0.0.2", "a.test", "b.test", "old.test"}) {
		t.Errorf("%q: the certificate is for %q", change, got)
	}
	for _, wanted := range [][]string{{"a.test", "old.test"}, {"b.test", "10.0.0.2"}, {"b.test"}} {
		if _, change := step(t, s, start, wanted...); change != changeNone {
			t.Errorf("%q: %s", wanted, change)
		}
	}
	s, _ = step(t, s, s.leaf.Leaf.NotAfter.Add(-leafRenewal+time.Second), "b.test")
	if got := namesOf(s.leaf.Leaf); !slices.Equal(got, []string{"b.test"}) {
		t.Errorf("the next certificate is for %q", got)
	}
}

func TestParseRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	data, _ := newData(t)
	other, _ := newData(t)
	for name, wrong := range map[string]map[string][]byte{
		"authorities":                  {keyAuthorities: nil},
		"authorities, which are a key": {keyAuthorities: encode(blockCertificate, []byte("x"))},
		"another authority":            {keyAuthorities: other[keyAuthorities]},
		"authority's key":              {keyAuthorityKey: nil},
		"authority's key, no DER":      {keyAuthorityKey: encode(blockKey, []byte("x"))},
		"another authority and key":    {keyAuthorities: other[keyAuthorities], keyAuthorityKey: other[keyAuthorityKey]},
		"certificate":                  {keyLeaf: nil},
		"another certificate":          {keyLeaf: other[keyLeaf]},
		"certificate's key":            {keyLeafKey: []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			mixed := map[string][]byte{}
			for key, value := range data {
				mixed[key] = value
				if replaced, ok := wrong[key]; ok {
					mixed[key] = replaced
				}
			}
			if _, err := parse(mixed); err == nil {
				t.Error("it is accepted")
			}
		})
	}
	if _, err := parse(data); err != nil {
		t.Errorf("what fits: %v", err)
	}
}
