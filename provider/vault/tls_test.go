package vault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestConnectionHint(t *testing.T) {
	t.Parallel()
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	tests := map[string]struct {
		err           error
		want          string
		isCertificate bool
	}{
		"unknown CA":              {x509.UnknownAuthorityError{}, "ca-cert of the volume, or --vault-ca-file", true},
		"another name":            {x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}, "set tls-server-name", true},
		"expired":                 {x509.CertificateInvalidError{Reason: x509.Expired}, "replace Vault's certificate", true},
		"refused certificate":     {alert, "set client-cert and client-key", true},
		"refused, writing":        {&net.OpError{Op: "write", Err: unix.EPIPE}, "if it requires a client certificate", false},
		"refused, reading":        {&net.OpError{Op: "read", Err: unix.ECONNRESET}, "if it requires a client certificate", false},
		"refused, over HTTP/2":    {errors.New("http2: client conn could not be established"), "if it requires a client certificate", false},
		"refused, and unusable":   {errors.New("http2: client conn not usable"), "if it requires a client certificate", false},
		"refused, and lost":       {errors.New("http2: client connection lost"), "if it requires a client certificate", false},
		"refused, and at its end": {io.EOF, "if it requires a client certificate", false},
		"nobody there":            {&net.OpError{Op: "dial", Err: unix.ECONNREFUSED}, "", false},
		"an answer with no sense": {errors.New("malformed HTTP response"), "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := fmt.Errorf("ask: %w", &url.Error{Op: "Put", URL: "https://vault", Err: test.err})
			if got := connectionHint(err); got == "" != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if got := isCertificateError(err); got != test.isCertificate {
				t.Errorf("an error of certificates: %t", got)
			}
		})
	}
}

func TestLinkLocalAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"169.254.169.254:80": true, "[fe80::1%eth0]:80": true, "[::ffff:169.254.169.254]:80": true, "10.0.0.1:8200": false, "[fd00:ec2::254]:80": false,
	} {
		if got := refuseLinkLocal("tcp", address, nil); (got != nil) != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if (Endpoint{Address: "http://169.254.1.1:8200"}).dialer().Control != nil || (Endpoint{Address: "http://vault:8200"}).dialer().Control == nil {
		t.Error("an allowed address is refused, or another is not")
	}
}

// The address is checked that a name resolves to.
func TestDialerConnectsToNoLinkLocalAddress(t *testing.T) {
	t.Parallel()
	_, err := (Endpoint{Address: "http://vault:8200"}).dialer().DialContext(t.Context(), "tcp", "169.254.169.254:80")
	if !errors.Is(err, errLinkLocal) {
		t.Errorf("got %v", err)
	}
}
