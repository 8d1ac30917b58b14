package pki

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIssuedCertificateServesItsHosts(t *testing.T) {
	ca, err := NewCA("ca")
	require.NoError(t, err)
	pair, err := ca.Issue("user", []string{"group"}, "10.0.0.1", "example.test")
	require.NoError(t, err)
	loaded, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	for _, host := range []string{"10.0.0.1", "example.test"} {
		if _, err := loaded.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Error(err)
		}
	}
	if _, err := loaded.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.test"}); err == nil {
		t.Error("it serves a host it was not issued for")
	}
	if subject := loaded.Leaf.Subject; subject.CommonName != "user" || len(subject.Organization) != 1 || subject.Organization[0] != "group" {
		t.Errorf("subject is %s", subject)
	}
}
