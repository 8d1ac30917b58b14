package webhook

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

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
