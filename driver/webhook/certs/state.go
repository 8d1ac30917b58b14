package certs

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// The keys of the Secret. Those of the serving certificate are what Kubernetes
// wants in a Secret of type kubernetes.io/tls.
const (
	keyAuthorities  = "ca.crt"
	keyAuthorityKey = "ca.key"
	keyLeaf         = "tls.crt"
	keyLeafKey      = "tls.key"
)

const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
)

// state is what the Secret holds. It is not changed once made.
type state struct {
	// authorities are what the API server trusts, the newest first. A replaced one
	// stays to its end, for what it has signed.
	authorities []*x509.Certificate
	// key is that of the first authority.
	key *ecdsa.PrivateKey
	// leaf is the serving certificate, signed by one of the authorities.
	leaf *tls.Certificate
}

// parse reads a Secret. The error is for what cannot be used; dates are not
// looked at.
func parse(data map[string][]byte) (*state, error) {
	s := &state{}
	rest := data[keyAuthorities]
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", keyAuthorities, err)
		}
		s.authorities = append(s.authorities, authority)
	}
	if len(s.authorities) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", keyAuthorities)
	}
	var err error
	if s.key, err = parseKey(data[keyAuthorityKey]); err != nil {
		return nil, fmt.Errorf("parse %s: %w", keyAuthorityKey, err)
	}
	if !s.key.PublicKey.Equal(s.authorities[0].PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", keyAuthorityKey, keyAuthorities)
	}
	pair, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return nil, fmt.Errorf("parse %s and %s: %w", keyLeaf, keyLeafKey, err)
	}
	s.leaf = &pair
	if s.issuer() == nil {
		return nil, fmt.Errorf("%s is not signed by %s", keyLeaf, keyAuthorities)
	}
	return s, nil
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it holds no key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a %T", parsed)
	}
	return key, nil
}

// issuer returns the authority of the serving certificate, or nil.
func (s *state) issuer() *x509.Certificate {
	i := slices.IndexFunc(s.authorities, func(authority *x509.Certificate) bool {
		return s.leaf.Leaf.CheckSignatureFrom(authority) == nil
	})
	if i < 0 {
		return nil
	}
	return s.authorities[i]
}

// bundle is what the API server should trust.
func (s *state) bundle() []byte {
	var bundle []byte
	for _, authority := range s.authorities {
		bundle = append(bundle, encode(blockCertificate, authority.Raw)...)
	}
	return bundle
}

// data is the state as the Secret holds it.
func (s *state) data() (map[string][]byte, error) {
	authorityKey, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	leafKey, err := x509.MarshalPKCS8PrivateKey(s.leaf.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return map[string][]byte{
		keyAuthorities:  s.bundle(),
		keyAuthorityKey: encode(blockKey, authorityKey),
		keyLeaf:         encode(blockCertificate, s.leaf.Leaf.Raw),
		keyLeafKey:      encode(blockKey, leafKey),
	}, nil
}

func encode(block string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
}
