package vault

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const (
	ofVersion2 = `{"request_id":"1","data":{"path":"kv/","type":"kv","options":{"version":"2"}}}`
	ofVersion1 = `{"request_id":"1","data":{"path":"kv/","type":"kv","options":null}}`
	// invalidPath is what a KV mount of version 2 says of a path without "data/".
	invalidPath = `{"request_id":"1","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use."],"auth":null}`
)

// playedMount is a Vault with one mount, kv/, that is of version 1 or 2.
type playedMount struct {
	*httptest.Server
	version int
	// probe is the status of an answer about the mount; denied are paths that the
	// policy does not allow.
	probe  int
	denied []string
	asked  []string
}

func startPlayedMount(t *testing.T, version int) *playedMount {
	t.Helper()
	m := &playedMount{version: version, probe: http.StatusOK}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// ServeHTTP implements http.Handler.
func (m *playedMount) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	m.asked = append(m.asked, path)
	status, body := m.answer(path)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client is gone
}

func (m *playedMount) answer(path string) (status int, body string) {
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

// A KV mount is upgraded in place, or made anew in another version, while the
// driver remembers it as it was.
func TestPathsOfAMountThatBecameAnother(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		before, after int
		denied        []string
		probe         int
		kind          error // of a read, nil if it brings the secret
		words         string
		kindOfList    error
	}{
		"upgraded":                               {1, 2, nil, 200, nil, "", nil},
		"upgraded, and the policy is not":        {1, 2, []string{"kv/data/app", "kv/metadata/team"}, 200, ErrDenied, "read kv/data/app in Vault", ErrDenied},
		"upgraded, and not to be asked about":    {1, 2, nil, 403, ErrNotFound, "Invalid path for a versioned K/V secrets engine", ErrNotFound},
		"upgraded while Vault has no answer":     {1, 2, nil, 500, ErrUnavailable, "ask for the mount of kv/app", ErrUnavailable},
		"withdrawn from the policy":              {2, 2, []string{"kv/data/app", "kv/app", "kv/metadata/team", "kv/team"}, 403, ErrDenied, "read kv/data/app in Vault", ErrDenied},
		"made anew":                              {2, 1, nil, 200, nil, "", nil},
		"made anew, with a policy of its own":    {2, 1, []string{"kv/data/app", "kv/metadata/team"}, 200, nil, "", nil},
		"made anew while Vault has no answer":    {2, 1, nil, 500, ErrUnavailable, "ask for the mount of kv/app", ErrUnavailable},
		"made anew, and the policy allows no KV": {2, 1, []string{"kv/data/app", "kv/app", "kv/metadata/team", "kv/team"}, 200, ErrDenied, "read kv/app in Vault", ErrDenied},
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
				m := startPlayedMount(t, test.before)
				session := resume(t, NewClientPool(Config{}), m.URL, ClientOptions{MaxRetries: NoRetries}, "token")
				if err := v.run(session); err != nil {
					t.Fatalf("%s before: %v", verb, err)
				}
				m.version, m.denied, m.probe = test.after, test.denied, test.probe
				_ = v.run(session) // the second says the same as the first
				err := v.run(session)
				if !errors.Is(err, v.kind) || verb == "read" && v.kind != nil && !strings.Contains(err.Error(), test.words) {
					t.Errorf("%s: got %v, want %v … %s", verb, err, v.kind, test.words)
				}
				m.denied, m.probe = nil, http.StatusOK
				if err := v.run(session); err != nil {
					t.Errorf("%s, when nothing stands in the way any more: %v", verb, err)
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

// What is not there is asked for once each time, and so is its mount.
func TestMissingSecretsCostOneProbeEach(t *testing.T) {
	t.Parallel()
	m := startPlayedMount(t, 2)
	session := resume(t, NewClientPool(Config{}), m.URL, ClientOptions{MaxRetries: NoRetries}, "token")
	if _, err := session.Read(t.Context(), "kv/app"); err != nil {
		t.Fatal(err)
	}
	m.asked = nil
	for range 3 {
		if _, err := session.Read(t.Context(), "kv/typo"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
	want := slices.Repeat([]string{"kv/data/typo", "sys/internal/ui/mounts/kv/typo"}, 3)
	if !slices.Equal(m.asked, want) {
		t.Errorf("asked %q", m.asked)
	}
}

// A write finds the mount that became another the next time: nobody repeats it here.
func TestNextWriteFindsTheMount(t *testing.T) {
	t.Parallel()
	m := startPlayedMount(t, 1)
	session := resume(t, NewClientPool(Config{}), m.URL, ClientOptions{MaxRetries: NoRetries}, "token")
	for _, version := range []int{1, 2} {
		m.version, m.asked = version, nil
		_, _ = session.Write(t.Context(), "kv/app", map[string]any{"v": "x"})
	}
	m.asked = nil
	if _, err := session.Write(t.Context(), "kv/app", map[string]any{"v": "x"}); err != nil || !slices.Equal(m.asked, []string{"kv/data/app"}) {
		t.Errorf("asked %q, %v", m.asked, err)
	}
}

// A mount gives way to another deeper down, which the old one must not hide.
func TestMountGivesWayToOneWithALongerPath(t *testing.T) {
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
	session := resume(t, NewClientPool(Config{}), server.URL, ClientOptions{MaxRetries: NoRetries}, "token")
	for _, moved = range []bool{false, true} {
		if _, err := session.Read(t.Context(), "kv/team/app"); err != nil {
			t.Errorf("moved %t: %v", moved, err)
		}
	}
	if got, _ := session.server.mounts.find("", "kv/team/app"); got.path != "kv/team/" {
		t.Errorf("the mount is taken for %+v", got)
	}
}
