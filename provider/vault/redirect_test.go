package vault

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// heard is a server that notes what it was sent, and answers as Vault.
type heard struct {
	*httptest.Server

	mutex    sync.Mutex
	requests []string // method, path, token and body
}

func listen(t *testing.T) *heard {
	t.Helper()
	h := &heard{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mutex.Lock()
		h.requests = append(h.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Vault-Token")+" "+string(body))
		h.mutex.Unlock()
		_, _ = io.WriteString(w, `{"request_id":"1","data":{"v":"stolen"},"auth":{"client_token":"hvs.x"}}`)
	}))
	t.Cleanup(h.Close)
	return h
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	read := func(servers *ClientPool, address string) error {
		session, err := servers.Client(context.Background(), Endpoint{Address: address}, ClientOptions{MaxRetries: NoRetries}, Token{Secret: "hvs.secret"})
		if err != nil {
			return err
		}
		_, err = session.Read(context.Background(), "kv/data/app")
		return err
	}
	logIn := func(servers *ClientPool, address string) error {
		_, err := servers.Login(context.Background(), Endpoint{Address: address}, ClientOptions{MaxRetries: NoRetries}, Credentials{Mount: "auth/jwt", Role: "app", JWT: "canary-jwt"})
		return err
	}
	tests := map[string]struct {
		ask     func(*ClientPool, string) error
		status  int
		target  string // empty for the other server
		allowed bool
		want    string // of the error
		heard   int    // requests of the other server
	}{
		"a read to another host":             {ask: read, status: 307, want: "which is not on the driver's list"},
		"a read to one on the list":          {ask: read, status: 307, allowed: true, heard: 1},
		"a login to another host":            {ask: logIn, status: 307, want: "which is not on the driver's list"},
		"a login to one on the list":         {ask: logIn, status: 307, allowed: true, want: "the driver shows what it writes, such as the token of a login, to no other host"},
		"a read, moved for good":             {ask: read, status: 301, want: "which is not on the driver's list"},
		"a login, found elsewhere":           {ask: logIn, status: 302, want: "which is not on the driver's list"},
		"the metadata service":               {ask: read, status: 307, target: "http://169.254.169.254/latest", allowed: true, want: "link-local"},
		"the metadata service, off the list": {ask: read, status: 307, target: "http://169.254.169.254/latest", want: "which is not on the driver's list"},
		"no URL":                             {ask: read, status: 307, target: "http://a b/%zz", want: "its Location is not a URL"},
		"another scheme":                     {ask: read, status: 307, target: "gopher://x/", want: "which is not on the driver's list"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := listen(t)
			first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "internal/ui/mounts") {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				location := test.target
				if location == "" {
					location = other.URL + r.URL.Path
				}
				w.Header().Set("Location", location)
				w.WriteHeader(test.status)
			}))
			t.Cleanup(first.Close)
			servers := NewClientPool(Config{AllowRedirect: func(string) bool { return test.allowed }})
			err := test.ask(servers, first.URL)
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want … %s", err, test.want)
			}
			if len(other.requests) != test.heard || test.heard == 0 && strings.Contains(strings.Join(other.requests, ""), "canary") {
				t.Errorf("the other host got %q", other.requests)
			}
		})
	}
}

// Vault itself may send a request to another path, or another address of its own.
func TestRedirectToTheSameHostIsFollowed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.URL.Path == "/v1/moved" && strings.Contains(string(body), "canary-jwt") {
			_, _ = io.WriteString(w, `{"auth":{"client_token":"hvs.x"}}`)
			return
		}
		http.Redirect(w, r, "/v1/moved", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(server.Close)
	if _, err := NewClientPool(Config{}).Login(t.Context(), Endpoint{Address: server.URL}, ClientOptions{}, Credentials{Mount: "auth/jwt", JWT: "canary-jwt"}); err != nil {
		t.Error(err)
	}
}

func TestRedirectDropsNoTLS(t *testing.T) {
	t.Parallel()
	other := listen(t)
	first := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", other.URL+r.URL.Path)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	t.Cleanup(first.Close)
	servers := NewClientPool(Config{AllowRedirect: func(string) bool { return true }})
	_, err := servers.Login(t.Context(), Endpoint{Address: first.URL, SkipVerify: true}, ClientOptions{MaxRetries: NoRetries}, Credentials{Mount: "auth/jwt", JWT: "canary-jwt"})
	if err == nil || !strings.Contains(err.Error(), "without TLS") || len(other.requests) != 0 {
		t.Errorf("got %v, and the other host got %q", err, other.requests)
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
		t.Error("an address that the administrator wrote himself is refused, or another is not")
	}
}

// The address is checked that a name has led to.
func TestDialerConnectsToNoLinkLocalAddress(t *testing.T) {
	t.Parallel()
	_, err := (Endpoint{Address: "http://vault:8200"}).dialer().DialContext(t.Context(), "tcp", "169.254.169.254:80")
	if !errors.Is(err, errLinkLocal) {
		t.Errorf("got %v", err)
	}
}
