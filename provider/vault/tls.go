package vault

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-cleanhttp"
	"golang.org/x/sys/unix"
)

// Endpoint is how to connect to one Vault. Equal endpoints share a transport. The
// certificates are part of it: a connection made with one pod's certificate must not
// carry another pod's requests.
type Endpoint struct {
	// Address is a URL of scheme, host and port.
	Address string
	// Proxy is a URL; empty for $HTTPS_PROXY and the like.
	Proxy string
	// ServerName is the name in the server's certificate; empty for the address's.
	ServerName string
	// SkipVerify accepts any certificate.
	SkipVerify bool
	// CACert is one or more CA certificates in PEM form; empty for the system's.
	CACert string
	// ClientCert and ClientKey are in PEM form; empty for none.
	ClientCert, ClientKey string
}

const (
	// idleConnections are for a node's burst of pods after a reboot. With Go's two for each
	// host, almost each request would open and close a connection.
	idleConnections = 64
	// maxHeaderBytes is for the header of a response; Go's default is 10 MiB.
	maxHeaderBytes = 64 << 10
)

// newTransport returns a transport with the endpoint's certificates. The error is
// ErrInvalid for certificates that cannot be used.
func (e Endpoint) newTransport(now time.Time) (*http.Transport, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.ServerName, InsecureSkipVerify: e.SkipVerify}
	if e.CACert != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(e.CACert)) {
			return nil, fmt.Errorf("%w: the CA bundle (ca-cert) holds no certificate in PEM form", ErrInvalid)
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
	transport.DisableCompression = true // Vault does not compress
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

// clientCertificate refuses a certificate that Vault would refuse with a TLS alert,
// which says too little to act on.
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
		return certificate, fmt.Errorf("%w: the client certificate (client-cert) expired on %s; put a new one into the Secret",
			ErrInvalid, expiry.UTC().Format(time.RFC3339))
	}
	return certificate, nil
}

// dialer refuses link-local addresses, unless the endpoint names one itself: then the
// administrator has allowed it.
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

var errLinkLocal = errors.New("the address is link-local, as that of a cloud's metadata service; the driver connects there only if --vault-address or --allow-address names the IP address itself")

// refuseLinkLocal is for net.Dialer.Control, which gets the IP address that a name
// resolves to. Clouds give out a node's credentials at such an address.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if isLinkLocal(host) {
		return errLinkLocal
	}
	return nil
}

func isLinkLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLinkLocalUnicast()
}

// connectionHint says what to set if one of the two sides does not trust the other.
func connectionHint(err error) string {
	switch {
	case isError[x509.UnknownAuthorityError](err):
		return "; set the CA certificate that signed Vault's: ca-cert of the volume, or --vault-ca-file of the driver"
	case isError[x509.HostnameError](err):
		return "; set tls-server-name to a name in Vault's certificate"
	case isError[x509.CertificateInvalidError](err):
		return "; replace Vault's certificate"
	case isAlert(err):
		return "; Vault requires a client certificate that it trusts: set client-cert and client-key"
	case isBroken(err):
		return "; Vault closed the connection: if it requires a client certificate, set client-cert and client-key"
	}
	return ""
}

// isCertificateError reports whether one side does not trust the other's certificate.
func isCertificateError(err error) bool { return connectionHint(err) != "" && !isBroken(err) }

// isBroken is how an alert may look on this side. TLS 1.3 refuses a client's certificate
// after the handshake, when the client writes already, so the error depends on which side
// is first. The errors of net/http for an HTTP/2 connection have no type.
func isBroken(err error) bool {
	for _, broken := range []error{unix.EPIPE, unix.ECONNRESET, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return strings.Contains(err.Error(), "http2: client conn")
}

// isAlert recognizes a TLS alert of the other side. crypto/tls has no type for it
// outside QUIC.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

func isError[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
