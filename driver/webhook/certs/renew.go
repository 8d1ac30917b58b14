package certs

import (
	"crypto/x509"
	"slices"
	"time"
)

// settle is how long an authority is known to the API server before it signs what
// is served: each API server learns of it at its own time.
const settle = time.Hour

// What next may change, for the log.
const (
	changeNone      = ""
	changeAll       = "new authority and certificate"
	changeAuthority = "new authority"
	changeLeaf      = "new certificate"
	changeExpired   = "expired authority removed"
)

// fresh is a first state.
func fresh(now time.Time, names []string) (*state, error) {
	authority, key, err := issueAuthority(now)
	if err != nil {
		return nil, err
	}
	leaf, err := issueLeaf(names, authority, key, now)
	if err != nil {
		return nil, err
	}
	return &state{authorities: []*x509.Certificate{authority}, key: key, leaf: leaf}, nil
}

// next makes the one change that is due, if any. It depends on nothing but the
// state, the time and the names, so it does not matter which replica makes it.
//
// A new authority does not sign at once. It joins the old one, which has signed
// what is in use, and signs when the serving certificate is due.
func (s *state) next(now time.Time, names []string) (*state, string, error) {
	newest := s.authorities[0]
	valid := slices.DeleteFunc(slices.Clone(s.authorities), func(a *x509.Certificate) bool { return now.After(a.NotAfter) })
	switch {
	case now.After(newest.NotAfter):
		first, err := fresh(now, names)
		return first, changeAll, err
	case now.After(newest.NotAfter.Add(-authorityRenewal)):
		authority, key, err := issueAuthority(now)
		return &state{slices.Concat([]*x509.Certificate{authority}, valid), key, s.leaf}, changeAuthority, err
	case s.leafIsDue(now, names):
		leaf, err := issueLeaf(s.namesFor(now, names), newest, s.key, now)
		return &state{s.authorities, s.key, leaf}, changeLeaf, err
	case len(valid) < len(s.authorities):
		return &state{valid, s.key, s.leaf}, changeExpired, nil
	}
	return s, changeNone, nil
}

func (s *state) leafIsDue(now time.Time, names []string) bool {
	leaf, newest := s.leaf.Leaf, s.authorities[0]
	known := now.After(newest.NotBefore.Add(backdate+settle)) || s.issuer() == newest
	if !known && !now.After(leaf.NotAfter) {
		return false
	}
	lacks := func(name string) bool { return !slices.Contains(namesOf(leaf), name) }
	return s.isOld(now) || slices.ContainsFunc(names, lacks)
}

func (s *state) isOld(now time.Time) bool {
	return now.After(s.leaf.Leaf.NotAfter.Add(-leafRenewal))
}

// namesFor keeps the names that there are until the certificate is old. During a
// change of the settings the replicas want different ones, and would otherwise
// replace each other's certificate over and over.
func (s *state) namesFor(now time.Time, names []string) []string {
	if s.isOld(now) {
		return names
	}
	all := slices.Concat(names, namesOf(s.leaf.Leaf))
	slices.Sort(all)
	return slices.Compact(all)
}
