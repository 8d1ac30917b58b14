package vault

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// connectionHint says what to set when the two sides do not trust each other.
func connectionHint(err error) string {
	switch {
	case asError[x509.UnknownAuthorityError](err):
		return "; give the authority that signed Vault's certificate: ca-cert of the volume, or --vault-ca-file of the driver"
	case asError[x509.HostnameError](err):
		return "; set tls-server-name to a name in Vault's certificate"
	case asError[x509.CertificateInvalidError](err):
		return "; Vault's certificate itself must be mended"
	case isAlert(err):
		return "; Vault wants a client certificate that it trusts: set client-cert and client-key"
	case isBroken(err):
		return "; Vault closed the connection: if it wants a client certificate, set client-cert and client-key"
	}
	return ""
}

// isDistrust reports whether TLS failed for want of the right certificate, on
// either side.
func isDistrust(err error) bool { return connectionHint(err) != "" && !isBroken(err) }

// isBroken is how an alert may look from here: TLS 1.3 refuses a client's
// certificate after the handshake, when the client is writing already, so which
// of the two sides notices first decides the error. What net/http says of an
// HTTP/2 connection that broke so has no type: it could not be established, is
// not usable, is lost.
func isBroken(err error) bool {
	for _, ended := range []error{unix.EPIPE, unix.ECONNRESET, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, ended) {
			return true
		}
	}
	return strings.Contains(err.Error(), "http2: client conn")
}

// isAlert recognises that the other side broke TLS off. crypto/tls has no type
// of its own for that outside QUIC.
func isAlert(err error) bool {
	var operation *net.OpError
	return errors.As(err, &operation) && operation.Op == "remote error"
}

func asError[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}
