package provider

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A pod that goes while Vault renews its token, or makes a new one, is no failure.
func TestCloseDuringARenewal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fixed bool
		path  string
	}{
		"renewal":     {false, "/renew-self"},
		"replacement": {true, "/login"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.vault.change(func() { b.vault.fixedTokens = test.fixed })
			b.open(b.request("v", staticTemplate))
			asked := make(chan struct{})
			b.vault.change(func() {
				b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, test.path) {
						return false
					}
					_, _ = io.ReadAll(r.Body) // so that the server notices when the client goes
					close(asked)
					<-r.Context().Done()
					return true
				}
			})
			b.time.Step(20 * time.Minute)
			if test.fixed {
				waitFor(t, func() bool { return b.vault.count("auth/token/renew-self") > 0 })
				b.time.Step(39 * time.Minute)
			}
			<-asked
			b.Close("v")
			b.end() // when what runs has ended
			if strings.Contains(b.logs.String(), "Vault token not renewed") {
				t.Error("it is logged as a failure")
			}
			b.begin()
		})
	}
}
