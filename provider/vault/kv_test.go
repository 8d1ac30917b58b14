package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vaultmount/vaultmount/provider/limits"
)

const (
	ofVersion2 = `{"request_id":"1","data":{"path":"kv/","type":"kv","options":{"version":"2"}}}`
	ofVersion1 = `{"request_id":"1","data":{"path":"kv/","type":"kv","options":null}}`
	// invalidPath is the answer of a KV version 2 mount to a path without "data/".
	invalidPath = `{"request_id":"1","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."],"auth":null}`
)

// fakeMount is a Vault with one mount, kv/, that is of version 1 or 2.
type fakeMount struct {
	*httptest.Server
	version int
	// probe is the status of an answer about the mount; denied are paths that the
	// policy does not allow.
	probe     int
	denied    []string
	requested []string
}

func startFakeMount(t *testing.T, version int) *fakeMount {
	t.Helper()
	m := &fakeMount{version: version, probe: http.StatusOK}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// ServeHTTP implements http.Handler.
func (m *fakeMount) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	m.requested = append(m.requested, path)
	status, body := m.answer(path)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client is gone
}

func (m *fakeMount) answer(path string) (status int, body string) {
	probed := strings.HasPrefix(path, "sys/internal/ui/mounts/")
	switch stored := fmt.Sprint(m.version, " ", path); {
	case probed && m.probe != http.StatusOK, slices.Contains(m.denied, path):
		return max(m.probe, http.StatusForbidden), `{"errors":["permission denied"]}`
	case probed && m.version == 2:
		return http.StatusOK, ofVersion2
	case probed:
		return http.StatusOK, ofVersion1
	case stored == "2 kv/data/app":
		return http.StatusOK, `{"request_id":"1","data":{"data":{"v":"two"},"metadata":{"version":1}}}`
	case stored == "1 kv/app":
		return http.StatusOK, `{"request_id":"1","data":{"v":"one"}}`
	case stored == "2 kv/metadata/team", stored == "1 kv/team":
		return http.StatusOK, `{"request_id":"1","data":{"keys":["app"]}}`
	case m.version == 2 && !strings.HasPrefix(path, "kv/data/") && !strings.HasPrefix(path, "kv/metadata/"):
		return http.StatusNotFound, invalidPath
	}
	return http.StatusNotFound, `{"errors":[]}`
}

// A KV mount is upgraded in place, or replaced in another version, while the
// driver remembers it as it was.
func TestPathsOfAMountOfAnotherVersion(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		before, after int
		denied        []string
		probe         int
		kind          error // of a read, nil if it brings the secret
		message       string
		kindOfList    error
	}{
		"upgraded":                              {1, 2, nil, 200, nil, "", nil},
		"upgraded, and the policy is not":       {1, 2, []string{"kv/data/app", "kv/metadata/team"}, 200, ErrDenied, "read kv/data/app in Vault", ErrDenied},
		"upgraded, and the token may not see":   {1, 2, nil, 403, ErrNotFound, "Invalid path for a versioned K/V secrets engine", ErrNotFound},
		"upgraded while Vault has no answer":    {1, 2, nil, 500, ErrUnavailable, "read the mount of kv/app", ErrUnavailable},
		"withdrawn from the policy":             {2, 2, []string{"kv/data/app", "kv/app", "kv/metadata/team", "kv/team"}, 403, ErrDenied, "read kv/data/app in Vault", ErrDenied},
		"replaced":                              {2, 1, nil, 200, nil, "", nil},
		"replaced, with a policy of its own":    {2, 1, []string{"kv/data/app", "kv/metadata/team"}, 200, nil, "", nil},
		"replaced while Vault has no answer":    {2, 1, nil, 500, ErrUnavailable, "read the mount of kv/app", ErrUnavailable},
		"replaced, and the policy allows no KV": {2, 1, []string{"kv/data/app", "kv/app", "kv/metadata/team", "kv/team"}, 200, ErrDenied, "read kv/app in Vault", ErrDenied},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verbs := map[string]struct {
				run  func(*Client) error
				kind error
			}{
				"read": {func(s *Client) error { _, err := s.Read(t.Context(), "kv/app"); return err }, test.kind},
				"list": {func(s *Client) error { return listOfOne(t, s) }, test.kindOfList},
			}
			for verb, v := range verbs {
				m := startFakeMount(t, test.before)
				client := newTestClientAt(t, m.URL)
				if err := v.run(client); err != nil {
					t.Fatalf("%s before: %v", verb, err)
				}
				m.version, m.denied, m.probe = test.after, test.denied, test.probe
				_ = v.run(client) // the second says the same as the first
				err := v.run(client)
				if !errors.Is(err, v.kind) || verb == "read" && v.kind != nil && !strings.Contains(err.Error(), test.message) {
					t.Errorf("%s: got %v, want %v … %s", verb, err, v.kind, test.message)
				}
				m.denied, m.probe = nil, http.StatusOK
				if err := v.run(client); err != nil {
					t.Errorf("%s, when nothing is denied any more: %v", verb, err)
				}
			}
		})
	}
}

// listOfOne fails as well if the list is empty: it would empty a file.
func listOfOne(t *testing.T, s *Client) error {
	t.Helper()
	names, err := s.List(t.Context(), "kv/team")
	if err == nil && !slices.Equal(names, []string{"app"}) {
		t.Errorf("the names are %q", names)
	}
	return err
}

// Each read of a missing secret costs one request and one probe of the mount.
func TestMissingSecretsCostOneProbeEach(t *testing.T) {
	t.Parallel()
	m := startFakeMount(t, 2)
	client := newTestClientAt(t, m.URL)
	if _, err := client.Read(t.Context(), "kv/app"); err != nil {
		t.Fatal(err)
	}
	m.requested = nil
	for range 3 {
		if _, err := client.Read(t.Context(), "kv/typo"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
	want := slices.Repeat([]string{"kv/data/typo", "sys/internal/ui/mounts/kv/typo"}, 3)
	if !slices.Equal(m.requested, want) {
		t.Errorf("requested %q", m.requested)
	}
}

// A failed write is not repeated. The next one uses the current version of the mount.
func TestNextWriteFindsTheMount(t *testing.T) {
	t.Parallel()
	m := startFakeMount(t, 1)
	client := newTestClientAt(t, m.URL)
	for _, version := range []int{1, 2} {
		m.version, m.requested = version, nil
		_, _ = client.Write(t.Context(), "kv/app", map[string]any{"v": "x"})
	}
	m.requested = nil
	if _, err := client.Write(t.Context(), "kv/app", map[string]any{"v": "x"}); err != nil || !slices.Equal(m.requested, []string{"kv/data/app"}) {
		t.Errorf("requested %q, %v", m.requested, err)
	}
}

// A mount replaces one with a shorter path, which must not hide it.
func TestMountReplacesOneWithAShorterPath(t *testing.T) {
	t.Parallel()
	moved := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probed := strings.HasPrefix(r.URL.Path, "/v1/sys/internal/ui/mounts/")
		switch {
		case probed && moved:
			_, _ = io.WriteString(w, `{"request_id":"1","data":{"path":"kv/team/","type":"kv","options":{"version":"2"}}}`)
		case probed:
			_, _ = io.WriteString(w, ofVersion1)
		case moved == (r.URL.Path == "/v1/kv/team/data/app"):
			_, _ = io.WriteString(w, `{"request_id":"1","data":{"v":"x"}}`)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"errors":[]}`)
		}
	}))
	defer server.Close()
	client := newTestClientAt(t, server.URL)
	for _, moved = range []bool{false, true} {
		if _, err := client.Read(t.Context(), "kv/team/app"); err != nil {
			t.Errorf("moved %t: %v", moved, err)
		}
	}
	if got, _ := client.endpoint.mounts.find("", "kv/team/app"); got.path != "kv/team/" {
		t.Errorf("the mount is taken for %+v", got)
	}
}

func TestFullPath(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mount, path string
		prefix      kvPrefix
		want        string
	}{
		{"kv/", "kv/app", kvData, "kv/data/app"},
		{"kv/", "kv/data/app", kvData, "kv/data/app"},
		{"kv/", "kv/metadata/app", kvData, "kv/metadata/app"},
		{"kv/", "kv/subkeys/app", kvData, "kv/subkeys/app"},
		{"kv/", "kv/team/data/app", kvData, "kv/data/team/data/app"},
		{"kv/", "kv/data", kvData, "kv/data/data"},
		{"kv/", "kv", kvData, "kv/data"},
		{"a/b/kv/", "a/b/kv/app", kvData, "a/b/kv/data/app"},
		{"kv/", "kv/app", kvMetadata, "kv/metadata/app"},
		{"kv/", "kv/metadata/app", kvMetadata, "kv/metadata/app"},
		{"kv/", "kv", kvMetadata, "kv/metadata"},
	}
	for _, test := range tests {
		t.Run(string(test.prefix)+" of "+test.path, func(t *testing.T) {
			t.Parallel()
			if got := (mount{path: test.mount, version: "2"}).fullPath(test.path, test.prefix); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestMountCache(t *testing.T) {
	t.Parallel()
	cache := newMountCache()
	cache.entries.Add(mountKey{"", "kv/"}, mount{path: "kv/", version: "2"})
	cache.entries.Add(mountKey{"", "team/kv/"}, mount{path: "team/kv/", version: "1"})
	cache.entries.Add(mountKey{"team", "kv/"}, mount{path: "kv/", version: "1"})
	tests := []struct{ namespace, path, mount, version string }{
		{"", "kv/app", "kv/", "2"},
		{"", "kv", "kv/", "2"},
		{"", "kvx/app", "", ""},
		{"", "team/kv/a/b", "team/kv/", "1"},
		{"", "team/other/x", "", ""},
		// The same path is another mount in another namespace.
		{"team", "kv/app", "kv/", "1"},
		{"other", "kv/app", "", ""},
	}
	for _, test := range tests {
		if got, ok := cache.find(test.namespace, test.path); got.path != test.mount || got.version != test.version || ok != (test.mount != "") {
			t.Errorf("%s in namespace %q: got %+v", test.path, test.namespace, got)
		}
	}
}

// A Vault may have a mount for any path.
func TestMountCacheIsBounded(t *testing.T) {
	t.Parallel()
	cache := newMountCache()
	for i := range 3 * maxMounts {
		cache.entries.Add(mountKey{"", fmt.Sprint(i, "/")}, mount{path: fmt.Sprint(i, "/")})
	}
	if got := cache.entries.Len(); got != maxMounts {
		t.Errorf("%d mounts are cached", got)
	}
	if _, ok := cache.find("", fmt.Sprint(3*maxMounts-1, "/app")); !ok {
		t.Error("the last mount is not cached")
	}
}

func TestSplitPath(t *testing.T) {
	t.Parallel()
	path, query, err := splitPath(" /kv/app?version=2 ")
	if err != nil || path != "kv/app" || query.Get("version") != "2" {
		t.Errorf("got %q %v %v", path, query, err)
	}
	for _, bad := range []string{"", "/", "?x=1", "../sys/raw", "kv/../sys", "kv/./a", "http://evil/x"} {
		if _, _, err := splitPath(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// Whoever reads Vault's health may not choose the status of the answer.
func TestPathsThatAreRefused(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"kv/app?version=2":                                         "",
		"kv/app?activecode=503":                                    "",
		"sys/health":                                               "",
		"sys/health?standbyok=true":                                "",
		"sys/seal-status":                                          "",
		"sys/health?activecode=503&x=1":                            "chooses the status of the answer",
		"/sys/health/?x=1&standbycode=503":                         "chooses the status of the answer",
		"sys//health?sealedcode=200":                               "chooses the status of the answer",
		"%73ys/health?performancestandbycode=":                     "chooses the status of the answer",
		"kv/../sys/health":                                         "is not a path in Vault",
		"kv/" + strings.Repeat("x", limits.VaultPathBytes.Max()-3): "",
		"kv/" + strings.Repeat("x", limits.VaultPathBytes.Max()-2): "(vault-path-bytes)",
	} {
		_, _, err := splitPath(raw)
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60s: got %v, want … %s", raw, err, want)
		}
	}
}

// The starting pods of a namespace send one request for a mount, unless the token of the
// first may not read it.
func TestManyClientsProbeOnce(t *testing.T) {
	t.Parallel()
	const clients = 20
	for name, c := range map[string]struct {
		denied int32 // the first ones
		want   int32
	}{
		"allowed":          {0, 1},
		"the first denied": {1, clients},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var waiting, probes atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "internal/ui/mounts") {
					_, _ = io.WriteString(w, `{"request_id":"1","data":{"data":{}}}`)
					return
				}
				for waiting.Load() < clients { // all are there before the first has its answer
					time.Sleep(time.Millisecond)
				}
				if probes.Add(1) <= c.denied {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				_, _ = io.WriteString(w, `{"request_id":"1","data":{"path":"team/kv/","type":"kv","options":{"version":"2"}}}`)
			}))
			t.Cleanup(server.Close)
			pool := NewClientPool(Config{})
			t.Cleanup(pool.Close)
			var group sync.WaitGroup
			for i := range clients {
				client := newTestClient(t, pool, server.URL, ClientOptions{}, fmt.Sprint("token-", i))
				group.Go(func() {
					waiting.Add(1)
					if _, err := client.Read(t.Context(), fmt.Sprintf("team/kv/app-%d", i)); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if got := probes.Load(); got > c.want || c.denied == 0 && got != 1 {
				t.Errorf("%d probes, want %d", got, c.want)
			}
		})
	}
}

// A caller that waits for another's probe honors its own context.
func TestMountOfHonorsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newTestClient(t, NewClientPool(Config{}), "http://vault:8200", ClientOptions{}, "token")
		probed := make(chan struct{})
		client.endpoint.mounts.probes.DoChan("  team", func() (any, error) { <-probed; return nil, nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.mountOf(ctx, "team/app"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(probed)
	})
}

// While Vault does not answer which version a mount has, no path of it is requested: a
// path of the wrong version is not found.
func TestMountWithoutAnAnswerIsNotVersion1(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		kind   error // nil for a path that is tried as it is
	}{
		"an error":                     {http.StatusInternalServerError, `{"errors":["internal error"]}`, ErrUnavailable},
		"a rate limit":                 {http.StatusTooManyRequests, `{"errors":["rate limit quota exceeded"]}`, ErrUnavailable},
		"a seal":                       {http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`, ErrUnavailable},
		"an empty answer":              {http.StatusOK, ``, ErrUnavailable},
		"another program":              {http.StatusOK, `{"status":"ok"}`, ErrUnavailable},
		"a token that Vault forgot":    {http.StatusForbidden, `{"errors":["permission denied","invalid token"]}`, ErrTokenGone},
		"a policy without the mount":   {http.StatusForbidden, `{"errors":["preflight capability check returned 403"]}`, nil},
		"a Vault that has no such API": {http.StatusNotFound, `{"errors":[]}`, nil},
		"a gateway that keeps sys/":    {http.StatusNotFound, `<html>Not found</html>`, nil},
	}
	verbs := map[string]func(*Client) error{
		"read":  func(s *Client) error { _, err := s.Read(t.Context(), "kv/data/app"); return err },
		"list":  func(s *Client) error { _, err := s.List(t.Context(), "kv/data/app"); return err },
		"write": func(s *Client) error { _, err := s.Write(t.Context(), "kv/data/app", nil); return err },
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for verb, run := range verbs {
				tried := 0
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/v1/kv/data/app" {
						tried++
						_, _ = io.WriteString(w, `{"request_id":"1","data":{"keys":[]}}`)
						return
					}
					w.WriteHeader(test.status)
					_, _ = io.WriteString(w, test.body)
				}))
				defer server.Close()
				client := newTestClientAt(t, server.URL)
				if err := run(client); !errors.Is(err, test.kind) {
					t.Errorf("%s: got %v, want %v", verb, err, test.kind)
				}
				if want := test.kind == nil; want != (tried == 1) {
					t.Errorf("%s: the path was tried %d times", verb, tried)
				}
			}
		})
	}
}

// Which mounts are KV is Vault's to say, once for each; and what it does not say is
// no KV.
func TestIsKV(t *testing.T) {
	const app = "/v1/sys/internal/ui/mounts/team/app"
	tests := map[string]struct {
		status int
		body   string
		want   bool
		known  bool
		err    error
	}{
		"version 2":         {http.StatusOK, `{"request_id":"1","data":{"path":"team/","type":"kv","options":{"version":"2"}}}`, true, true, nil},
		"version 1":         {http.StatusOK, `{"request_id":"1","data":{"path":"team/","type":"kv","options":null}}`, true, true, nil},
		"a database":        {http.StatusOK, `{"request_id":"1","data":{"path":"team/","type":"database","options":null}}`, false, true, nil},
		"another mount":     {http.StatusOK, `{"request_id":"1","data":{"path":"other/","type":"kv"}}`, false, false, nil},
		"nothing":           {http.StatusOK, `{"request_id":"1","data":{}}`, false, false, nil},
		"an empty answer":   {http.StatusOK, ``, false, false, ErrUnavailable},
		"another program":   {http.StatusOK, `{"status":"ok"}`, false, false, ErrUnavailable},
		"not to be asked":   {http.StatusForbidden, `{"errors":["preflight capability check returned 403"]}`, false, false, nil},
		"a token that went": {http.StatusForbidden, `{"errors":["permission denied","invalid token"]}`, false, false, ErrTokenGone},
		"away":              {http.StatusServiceUnavailable, `{"errors":["Vault is sealed"]}`, false, false, ErrUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			probes := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != app {
					t.Errorf("%s was requested", r.URL.Path)
				}
				probes++
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body) // the client is gone
			}))
			defer server.Close()
			endpoint := Endpoint{Address: server.URL}
			pool := NewClientPool(Config{})
			if _, known := pool.KnownKV(endpoint, "", "team/app"); known {
				t.Error("it is known before the first request")
			}
			client, err := pool.Client(t.Context(), endpoint, ClientOptions{MaxRetries: NoRetries}, Token{Secret: "token"})
			if err != nil {
				t.Fatal(err)
			}
			got, err := client.IsKV(t.Context(), "/team/app?version=3")
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %t, %v", got, err)
			}
			if isKV, known := pool.KnownKV(endpoint, "", "team/app"); isKV != test.want || known != test.known {
				t.Errorf("afterwards: KV %t, known %t", isKV, known)
			}
			if _, known := pool.KnownKV(endpoint, "elsewhere", "team/app"); known {
				t.Error("it is known of another namespace")
			}
			if again, _ := client.IsKV(t.Context(), "team/app"); test.known && (again != test.want || probes != 1) {
				t.Errorf("again: %t after %d probes", again, probes)
			}
		})
	}
}

func TestNoPathIsNoKV(t *testing.T) {
	pool := NewClientPool(Config{})
	if isKV, known := pool.KnownKV(Endpoint{Address: "http://vault"}, "", "../sys"); isKV || known {
		t.Error("a path that leaves the API is known")
	}
	client := newTestClientAt(t, "http://127.0.0.1:1")
	if _, err := client.IsKV(t.Context(), "kv/../sys"); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
