package component

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// testCA signs the certificates of one test.
type testCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newCA(t *testing.T, name string) *testCA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := rig.NewKey(t)
	certificate, text := sign(t, template, template, key, key)
	return &testCA{certificate: certificate, key: key, pem: text}
}

// issue returns a certificate and its key in PEM form, good for both sides.
func (a *testCA) issue(t *testing.T, name string, expires time.Time) (certificate, key string) {
	t.Helper()
	own := rig.NewKey(t)
	_, certificate = sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv6loopback},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, own, a.key)
	encoded, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(t, err)
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

func sign(t *testing.T, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, string) {
	t.Helper()
	encoded, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(encoded)
	require.NoError(t, err)
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encoded}))
}

// startTLSVault serves TLS for the name vault.internal, and asks for a client
// certificate if mutual. The name is not that of the address on purpose.
func startTLSVault(t *testing.T, a *testCA, mutual bool) *rig.Vault {
	t.Helper()
	directory := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(directory, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	certificate, key := a.issue(t, "vault.internal", time.Now().Add(time.Hour))
	tls := &vaultserver.TLS{Certificate: write("tls.crt", certificate), Key: write("tls.key", key)}
	if mutual {
		tls.ClientCA = write("ca.crt", a.pem)
	}
	return rig.SetUpVault(t, vaultserver.ForTest(t, tls))
}
