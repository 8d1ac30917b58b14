package rig

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Webhook is the program as the webhook of an API server, at its highest
// verbosity, with a certificate from files.
type Webhook struct {
	*Process
	// Reviews is the URL of its root, Health that of its health and metrics.
	Reviews, Health string
	// Client trusts its certificate.
	Client *http.Client
}

// StartWebhook runs it and waits until it listens.
func StartWebhook(t testing.TB, arguments ...string) *Webhook {
	t.Helper()
	return startWebhook(t, func(command []string) []string { return command }, arguments)
}

// startWebhook runs what wrap makes of the command.
func startWebhook(t testing.TB, wrap func(command []string) []string, arguments []string) *Webhook {
	t.Helper()
	certificate, key, client := servingCertificate(t)
	p := run(t, newLog(t, "webhook"), wrap(append([]string{Program(t), "webhook", "--tls-cert-file=" + certificate, "--tls-key-file=" + key,
		"--webhook-bind-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0", "--verbosity=10"}, arguments...)))
	w := &Webhook{Process: p, Client: client}
	w.Reviews = "https://" + p.Address(t, "Serving reviews")
	w.Health = "http://" + p.Address(t, "Serving health and metrics")
	return w
}

// Address waits for the address that the program logs beside a message, and returns
// that of the last start.
func (p *Process) Address(t testing.TB, message string) string {
	t.Helper()
	line := regexp.MustCompile(regexp.QuoteMeta(`"`+message+`" address="`) + `([^"]+)"`)
	var found [][]string
	Eventually(t, "the program logs: "+message, func() bool {
		found = line.FindAllStringSubmatch(p.Log.String(), -1)
		return found != nil
	})
	return found[len(found)-1][1]
}

// servingCertificate borrows the one that net/http tests with.
func servingCertificate(t testing.TB) (certificateFile, keyFile string, client *http.Client) {
	t.Helper()
	lender := httptest.NewTLSServer(nil)
	defer lender.Close()
	pair := lender.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("tls.crt", "CERTIFICATE", pair.Certificate[0]), write("tls.key", "PRIVATE KEY", key), lender.Client()
}
