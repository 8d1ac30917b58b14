package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

const day = 24 * time.Hour

// The validity of a CA certificate and of the serving certificate that it signs, and how
// long before its end both are replaced.
const (
	validity = 90 * day
	renewal  = 30 * day
	// backdate is for an API server whose clock is behind.
	backdate = time.Hour
)

// The keys of the Secret. Those of the serving certificate are those of a Secret of type
// kubernetes.io/tls.
const (
	keyCAs     = "ca.crt"
	keyLeaf    = "tls.crt"
	keyLeafKey = "tls.key"
)

const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
)

// state is what the Secret holds. It does not change.
type state struct {
	// cas are what the API server trusts, the newest first. A replaced CA certificate stays
	// until the next change, for replicas that still serve what it has signed.
	cas []*x509.Certificate
	// leaf is the serving certificate, signed by one of the CAs.
	leaf *tls.Certificate
}

// issue returns a new CA certificate and a serving certificate for DNS names and IP
// addresses. The key of the CA signs once, and is not kept. The CA certificates of before
// that are still valid follow the new one.
func issue(now time.Time, names []string, before []*x509.Certificate) (*state, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "vaultmount webhook CA"},
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	ca, err := sign(now, template, template, caKey, caKey)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	template = &x509.Certificate{
		Subject:     pkix.Name{CommonName: "vaultmount webhook"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	leaf, err := sign(now, template, ca, key, caKey)
	if err != nil {
		return nil, err
	}
	valid := slices.DeleteFunc(slices.Clone(before), func(ca *x509.Certificate) bool { return now.After(ca.NotAfter) })
	return &state{
		cas:  slices.Concat([]*x509.Certificate{ca}, valid),
		leaf: &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
	}, nil
}

func sign(now time.Time, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choose a serial number: %w", err)
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// next returns the state after the change that is due, or the same state. It depends only
// on the state, the time and the names, so it does not matter which replica calls it.
func (s *state) next(now time.Time, names []string) (*state, error) {
	current := namesOf(s.leaf.Leaf)
	lacks := func(name string) bool { return !slices.Contains(current, name) }
	switch {
	case now.After(s.leaf.Leaf.NotAfter.Add(-renewal)):
		return issue(now, names, s.cas)
	case slices.ContainsFunc(names, lacks):
		// During a change of the settings replicas want different names. With those of both,
		// they do not replace each other's certificate.
		all := slices.Concat(names, current)
		slices.Sort(all)
		return issue(now, slices.Compact(all), s.cas)
	}
	return s, nil
}

// namesOf returns the DNS names and IP addresses of a certificate.
func namesOf(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// trusts reports whether one of the CAs has signed a certificate.
func (s *state) trusts(leaf *x509.Certificate) bool {
	return slices.ContainsFunc(s.cas, func(ca *x509.Certificate) bool { return leaf.CheckSignatureFrom(ca) == nil })
}

// parse reads a Secret. It ignores dates.
func parse(data map[string][]byte) (*state, error) {
	s := &state{}
	for block, rest := pem.Decode(data[keyCAs]); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", keyCAs, err)
		}
		s.cas = append(s.cas, ca)
	}
	pair, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return nil, fmt.Errorf("parse %s and %s: %w", keyLeaf, keyLeafKey, err)
	}
	if s.leaf = &pair; !s.trusts(pair.Leaf) {
		return nil, fmt.Errorf("no certificate in %s has signed %s", keyCAs, keyLeaf)
	}
	return s, nil
}

// bundle is the caBundle for the API server.
func (s *state) bundle() []byte {
	var bundle []byte
	for _, ca := range s.cas {
		bundle = append(bundle, encode(blockCertificate, ca.Raw)...)
	}
	return bundle
}

// data is the content of the Secret.
func (s *state) data() (map[string][]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(s.leaf.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return map[string][]byte{keyCAs: s.bundle(), keyLeaf: encode(blockCertificate, s.leaf.Leaf.Raw), keyLeafKey: encode(blockKey, key)}, nil
}

func encode(block string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
}
