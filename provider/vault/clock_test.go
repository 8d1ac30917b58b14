package vault

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

// However wrong the node's clock is, a session knows Vault's time to a second, and
// never takes it to be earlier than it is.
func TestAheadIsHowFarVaultsClockIs(t *testing.T) {
	t.Parallel()
	node := time.Date(2026, 5, 6, 7, 8, 9, 500_000_000, time.UTC)
	const noDate = "none"
	at := func(t time.Time) string { return t.Format(http.TimeFormat) }
	tests := map[string]struct {
		date   string
		status int
		read   bool
		want   time.Duration
	}{
		"the same second":                   {at(node), 200, false, 0},
		"a second ahead":                    {at(node.Add(time.Second)), 200, false, 0},
		"an answer under way for a second":  {at(node.Add(-time.Second)), 200, false, 0},
		"an hour ahead":                     {at(node.Add(time.Hour)), 200, false, time.Hour + time.Second/2},
		"an hour behind":                    {at(node.Add(-time.Hour)), 204, false, -time.Hour + time.Second/2},
		"a read, which a cache may answer":  {at(node.Add(time.Hour)), 200, true, 0},
		"a failure, which may be a proxy's": {at(node.Add(time.Hour)), 400, false, 0},
		"a redirect":                        {at(node.Add(time.Hour)), 307, false, 0},
		"no date":                           {noDate, 200, false, 0},
		"what is no date":                   {"tomorrow", 200, false, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = []string{test.date}
				if test.date == noDate {
					w.Header()["Date"] = nil
				}
				w.WriteHeader(test.status)
			}))
			defer server.Close()
			servers := NewServers(klog.Background(), func() time.Time { return node })
			session, err := servers.Resume(t.Context(), Endpoint{Address: server.URL}, Options{}, Token{Secret: "token"})
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			if test.read {
				_, _ = session.Read(t.Context(), "kv/data/app")
			} else {
				_, _ = session.client.Logical().WriteWithContext(t.Context(), "pki/issue/app", nil)
			}
			if got := session.Ahead(); got != test.want {
				t.Errorf("ahead by %s, want %s", got, test.want)
			}
			// It is the endpoint's, whoever asks.
			other, err := servers.Resume(t.Context(), Endpoint{Address: server.URL}, Options{}, Token{Secret: "other"})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if got := other.Ahead(); got != test.want {
				t.Errorf("another session has %s, want %s", got, test.want)
			}
		})
	}
}
