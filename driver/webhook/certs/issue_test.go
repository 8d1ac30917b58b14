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

func mustIssue(t *testing.T, now time.Time, names ...string) *state {
	t.Helper()
	s, err := issue(now, names, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newData(t *testing.T) (map[string][]byte, *tls.Certificate) {
	t.Helper()
	s := mustIssue(t, time.Now(), "webhook.test")
	data, err := s.data()
	if err != nil {
		t.Fatal(err)
	}
	return data, s.leaf
}

func trusts(bundle []byte, leaf *tls.Certificate, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}

// step returns the next state as another replica reads it, and whether it is another one.
func step(t *testing.T, s *state, now time.Time, names ...string) (after *state, changed bool) {
	t.Helper()
	after, err := s.next(now, names)
	if err != nil {
		t.Fatal(err)
	}
	data, err := after.data()
	if err != nil {
		t.Fatal(err)
	}
	read, err := parse(data)
	if err != nil {
		t.Fatalf("the Secret cannot be read: %v", err)
	}
	return read, after != s
}

// In ten years of weekly checks, the new caBundle trusts the certificate of before and the
// new one, and does not grow.
func TestRenewalNeverLosesTrust(t *testing.T) {
	t.Parallel()
	s := mustIssue(t, start, names...)
	changes := 0
	for now := start; now.Before(start.AddDate(10, 0, 0)); now = now.Add(7 * day) {
		before := s
		var changed bool
		if s, changed = step(t, s, now, names...); changed {
			changes++
		}
		for _, name := range []string{"webhook.test", "10.0.0.1"} {
			for what, leaf := range map[string]*tls.Certificate{"the certificate": s.leaf, "that of before": before.leaf} {
				if err := trusts(s.bundle(), leaf, name, now); err != nil {
					t.Fatalf("%s: %s: %v", now, what, err)
				}
			}
		}
		if left := s.leaf.Leaf.NotAfter.Sub(now); left < renewal-7*day {
			t.Fatalf("%s: the certificate ends in %s", now, left)
		}
		if len(s.cas) > 2 {
			t.Fatalf("%s: the caBundle has %d certificates", now, len(s.cas))
		}
	}
	if changes < 50 || changes > 70 {
		t.Errorf("%d changes", changes)
	}
}

// A CA certificate that has expired leaves the caBundle.
func TestRenewalAfterALongTime(t *testing.T) {
	t.Parallel()
	now := start.AddDate(2, 0, 0)
	s, changed := step(t, mustIssue(t, start, names...), now, names...)
	if err := trusts(s.bundle(), s.leaf, "webhook.test", now); err != nil || !changed || len(s.cas) != 1 {
		t.Errorf("%d CA certificates, %v", len(s.cas), err)
	}
	if _, changed := step(t, s, now, names...); changed {
		t.Error("it changes once more")
	}
}

// Two replicas of different settings, as during an update, stop replacing each other's
// certificate.
func TestNames(t *testing.T) {
	t.Parallel()
	requireNames := func(s *state, want ...string) {
		t.Helper()
		got := namesOf(s.leaf.Leaf)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("the certificate is for %q", got)
		}
	}
	s, _ := step(t, mustIssue(t, start, "a.test", "old.test"), start, "b.test", "10.0.0.2")
	requireNames(s, "10.0.0.2", "a.test", "b.test", "old.test")
	for _, wanted := range [][]string{{"a.test", "old.test"}, {"b.test", "10.0.0.2"}, {"b.test"}} {
		if _, changed := step(t, s, start, wanted...); changed {
			t.Errorf("%q: it changes", wanted)
		}
	}
	s, _ = step(t, s, s.leaf.Leaf.NotAfter.Add(-renewal+time.Second), "b.test")
	requireNames(s, "b.test")
}

func TestParseRejectsInvalidSecrets(t *testing.T) {
	t.Parallel()
	data, _ := newData(t)
	other, _ := newData(t)
	for name, wrong := range map[string]map[string][]byte{
		"no CA certificate":      {keyCAs: nil},
		"an invalid certificate": {keyCAs: encode(blockCertificate, []byte("x"))},
		"another CA certificate": {keyCAs: other[keyCAs]},
		"no certificate":         {keyLeaf: nil},
		"another certificate":    {keyLeaf: other[keyLeaf]},
		"an invalid key":         {keyLeafKey: []byte("x")},
		"another pair":           {keyLeaf: other[keyLeaf], keyLeafKey: other[keyLeafKey]},
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
		t.Errorf("a valid Secret: %v", err)
	}
}
