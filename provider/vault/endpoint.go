package vault

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-cleanhttp"
)

// Endpoint is one way to one Vault. Equal endpoints share a transport, so its
// certificates are part of it: a connection made with one pod's certificate must
// not carry another pod's requests.
type Endpoint struct {
	// Address is a URL of scheme, host and port.
	Address string
	// Proxy is a URL; empty for $HTTPS_PROXY and its kin.
	Proxy string
	// ServerName is the name in the server's certificate; empty for the address's.
	ServerName string
	// SkipVerify accepts any certificate.
	SkipVerify bool
	// CACert is one or more certificates in PEM form; empty for the system's.
	CACert string
	// ClientCert and ClientKey are in PEM form; empty for none.
	ClientCert, ClientKey string
}

// idleConnections are kept for a node's burst of pods after a reboot; Go's two
// per host would open and close a connection for almost each request.
const idleConnections = 64

// newTransport checks the endpoint's certificates and returns a transport that
// uses them.
func (e Endpoint) newTransport(now time.Time) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.ServerName, InsecureSkipVerify: e.SkipVerify}
	if e.CACert != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(e.CACert)) {
			return nil, fmt.Errorf("%w: the certificate authority (ca-cert) holds no certificate in PEM form", ErrInvalid)
		}
	}
	if e.ClientCert != "" {
		certificate, err := e.clientCertificate(now)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	transport := cleanhttp.DefaultPooledTransport()
	transport.MaxIdleConns = idleConnections
	transport.MaxIdleConnsPerHost = idleConnections
	transport.TLSClientConfig = config
	// Vault does not compress, and headers are read before anything counts them.
	transport.DisableCompression = true
	transport.MaxResponseHeaderBytes = maxHeaderBytes
	transport.DialContext = e.dialer().DialContext
	if e.Proxy != "" {
		proxy, err := url.Parse(e.Proxy)
		if err != nil {
			return nil, fmt.Errorf("%w: proxy-address: %w", ErrInvalid, err)
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	return transport, nil
}

// maxHeaderBytes is for the header of a response; Go's default is 10 MiB.
const maxHeaderBytes = 64 << 10

// dialer refuses link-local addresses, unless the endpoint names one itself: then
// the administrator has chosen it.
func (e Endpoint) dialer() *net.Dialer {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	for _, text := range []string{e.Address, e.Proxy} {
		if u, err := url.Parse(text); err == nil && isLinkLocal(u.Hostname()) {
			return dialer
		}
	}
	dialer.Control = refuseLinkLocal
	return dialer
}

// clientCertificate refuses a certificate that Vault would: what its TLS alert
// says is too little to act on.
func (e Endpoint) clientCertificate(now time.Time) (tls.Certificate, error) {
	certificate, err := tls.X509KeyPair([]byte(e.ClientCert), []byte(e.ClientKey))
	if err != nil {
		if block, _ := pem.Decode([]byte(e.ClientCert)); block == nil {
			return certificate, fmt.Errorf("%w: the client certificate (client-cert) holds no certificate in PEM form", ErrInvalid)
		}
		// The error of crypto/tls names types and mismatches, never the key.
		return certificate, fmt.Errorf("%w: the client certificate and key (client-cert, client-key) do not belong together: %w", ErrInvalid, err)
	}
	if expiry := certificate.Leaf.NotAfter; now.After(expiry) {
		return certificate, fmt.Errorf("%w: the client certificate (client-cert) expired on %s; put a new one into the Secret", ErrInvalid, expiry.UTC().Format(time.RFC3339))
	}
	return certificate, nil
}
