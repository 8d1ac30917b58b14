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
		err      error
		want     string
		distrust bool
	}{
		"unknown authority":       {x509.UnknownAuthorityError{}, "ca-cert of the volume, or --vault-ca-file", true},
		"another name":            {x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}, "set tls-server-name", true},
		"expired":                 {x509.CertificateInvalidError{Reason: x509.Expired}, "Vault's certificate itself", true},
		"refused certificate":     {alert, "set client-cert and client-key", true},
		"refused, writing":        {&net.OpError{Op: "write", Err: unix.EPIPE}, "if it wants a client certificate", false},
		"refused, reading":        {&net.OpError{Op: "read", Err: unix.ECONNRESET}, "if it wants a client certificate", false},
		"refused, over HTTP/2":    {errors.New("http2: client conn could not be established"), "if it wants a client certificate", false},
		"refused, and unusable":   {errors.New("http2: client conn not usable"), "if it wants a client certificate", false},
		"refused, and lost":       {errors.New("http2: client connection lost"), "if it wants a client certificate", false},
		"refused, and at its end": {io.EOF, "if it wants a client certificate", false},
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
			if got := isDistrust(err); got != test.distrust {
				t.Errorf("distrust is %t", got)
			}
		})
	}
}
