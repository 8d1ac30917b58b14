package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// exchangeable is a certificate that the test changes under a running server.
type exchangeable struct {
	mutex   sync.Mutex
	current *tls.Certificate
}

func (e *exchangeable) Current() (*tls.Certificate, error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if e.current == nil {
		return nil, errors.New("no certificate yet")
	}
	return e.current, nil
}

func (e *exchangeable) put(certificate *tls.Certificate) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	e.current = certificate
}

func issue(t *testing.T, serial int64, notAfter time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: notAfter, DNSNames: []string{"webhook.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// running is a server with its two addresses.
type running struct {
	reviews, health string
	stop            func() error
}

func serve(t *testing.T, certificate Certificate, now time.Time) running {
	t.Helper()
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	reviews, health := listen(), listen()
	server := &Server{Handler: NewHandler(Reviewer{}, NewMetrics(certificate)), Certificate: certificate, Now: func() time.Time { return now }}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, reviews, health) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return running{reviews.Addr().String(), health.Addr().String(), stop}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// handshake returns the serial number of what the server shows.
func handshake(t *testing.T, address string, config *tls.Config) (int64, error) {
	t.Helper()
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestServerShowsTheCertificateOfNow(t *testing.T) {
	t.Parallel()
	certificate := &exchangeable{}
	s := serve(t, certificate, time.Now())
	trustAll := &tls.Config{InsecureSkipVerify: true}
	if _, err := handshake(t, s.reviews, trustAll); err == nil {
		t.Error("there is a certificate before there is one")
	}
	for serial := range int64(3) {
		certificate.put(issue(t, serial+1, time.Now().Add(time.Hour)))
		if got, err := handshake(t, s.reviews, trustAll); err != nil || got != serial+1 {
			t.Errorf("the server shows certificate %d, %v", got, err)
		}
	}
	if _, err := handshake(t, s.reviews, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if err := s.stop(); err != nil {
		t.Errorf("the server ends with %v", err)
	}
}

func TestServerIsReadyWithAValidCertificate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		certificate *tls.Certificate
		status      int
		message     string
		metric      string
	}{
		"none":    {nil, http.StatusServiceUnavailable, "no certificate yet", "0"},
		"valid":   {issue(t, 1, now.Add(time.Second)), http.StatusOK, "ok", "1.767225601e+09"},
		"expired": {issue(t, 1, now.Add(-time.Second)), http.StatusServiceUnavailable, "the certificate has expired at 2025-12-31T23:59:59Z", "1.767225599e+09"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &exchangeable{current: test.certificate}, now)
			if status, body := get(t, "http://"+s.health+"/readyz"); status != test.status || !strings.Contains(body, test.message) {
				t.Errorf("/readyz says %d, %s", status, body)
			}
			if status, _ := get(t, "http://"+s.health+"/healthz"); status != http.StatusOK {
				t.Errorf("/healthz says %d", status)
			}
			if _, body := get(t, "http://"+s.health+"/metrics"); !strings.Contains(body, "\nvaultmount_webhook_certificate_expiration_timestamp_seconds "+test.metric+"\n") {
				t.Errorf("/metrics says %s", body)
			}
			if status, _ := get(t, "http://"+s.health+"/mutate"); status != http.StatusNotFound {
				t.Errorf("reviews are served without TLS: %d", status)
			}
		})
	}
}

func TestServerAnswersReviews(t *testing.T) {
	t.Parallel()
	certificate := issue(t, 1, time.Now().Add(time.Hour))
	s := serve(t, &exchangeable{current: certificate}, time.Now())
	roots := x509.NewCertPool()
	roots.AddCert(certificate.Leaf)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "webhook.test"}, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	c := readCase(t, "testdata/tutorial-payroll/object.yaml")
	for method, want := range map[string]int{http.MethodPost: http.StatusOK, http.MethodGet: http.StatusMethodNotAllowed} {
		request, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.reviews+"/mutate?timeout=10s", reviewOf(t, "admission.k8s.io/v1", c.request(t)))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want || response.ProtoMajor != 1 {
			t.Errorf("%s answers %s by %s", method, response.Status, response.Proto)
		}
	}
}

func TestServerEndsWithItsListener(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	certificate := &exchangeable{}
	server := &Server{Handler: NewHandler(Reviewer{}, NewMetrics(certificate)), Certificate: certificate, Now: time.Now}
	if err := server.Serve(t.Context(), listener, closed); err == nil || !strings.Contains(err.Error(), "serve health and metrics") {
		t.Errorf("it ends with %v", err)
	}
}

func dialFrom(t *testing.T, host, address string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// One host opens as many connections as it likes, and closes its own by it.
func TestHostWithMostConnectionsLosesItsOldest(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := limitConnections(inner, 4)
	t.Cleanup(func() { listener.Close() })
	accepted := map[net.Conn]net.Conn{}
	open := func(host string) net.Conn {
		client := dialFrom(t, host, inner.Addr().String())
		server, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted[client] = server
		return client
	}
	isOpen := func(client net.Conn) bool {
		_, err := accepted[client].Write([]byte("x"))
		return err == nil
	}
	victim := open("127.0.0.2")
	var greedy []net.Conn
	for range 10 {
		greedy = append(greedy, open("127.0.0.3"))
	}
	second := open("127.0.0.2")
	for i, client := range greedy {
		if want := i >= 8; isOpen(client) != want {
			t.Errorf("connection %d of the greedy host is open: %t", i, !want)
		}
	}
	if !isOpen(victim) || !isOpen(second) {
		t.Error("the other host lost a connection")
	}
	for _, server := range accepted {
		for range 2 {
			_ = server.Close()
		}
	}
	if listener.total != 0 || len(listener.byHost) != 0 {
		t.Errorf("%d connections of %d hosts are left", listener.total, len(listener.byHost))
	}
}

// A sender that reserves memory and sends nothing loses it soon.
func TestSlowSenderIsCutOff(t *testing.T) {
	t.Parallel()
	s := serve(t, &exchangeable{current: issue(t, 1, time.Now().Add(time.Hour))}, time.Now())
	conn := tls.Client(dialFrom(t, "127.0.0.2", s.reviews), &tls.Config{InsecureSkipVerify: true})
	if _, err := fmt.Fprintf(conn, "POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", 3<<20); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusRequestTimeout || !bytes.Contains(body, []byte("longer than 2s")) {
		t.Errorf("got %s %q, %v", response.Status, body, err)
	}
}

func TestLargeHeaderIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, &exchangeable{current: issue(t, 1, time.Now().Add(time.Hour))}, time.Now())
	conn := tls.Client(dialFrom(t, "127.0.0.2", s.reviews), &tls.Config{InsecureSkipVerify: true})
	// The server reads this much more than the limit.
	const slop = 4096
	if _, err := fmt.Fprintf(conn, "POST /mutate HTTP/1.1\r\nHost: webhook\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", maxHeader+slop)); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", response.Status)
	}
}
