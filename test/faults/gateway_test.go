package faults

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gateway is what a network puts in front of Vault. It passes everything on, until
// it answers by itself what a real Vault cannot be made to say.
type gateway struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc] // nil passes on
}

func openGateway(t *testing.T, to string) *gateway {
	t.Helper()
	vault, err := url.Parse(to)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(vault) }}
	g := &gateway{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer := g.answer.Load(); answer != nil {
			(*answer)(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// say makes the gateway answer so from now on; nil makes it pass requests on.
func (g *gateway) say(answer http.HandlerFunc) {
	if answer == nil {
		g.answer.Store(nil)
		return
	}
	g.answer.Store(&answer)
}

// saying answers with a status and a body.
func saying(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // the client may have gone
	}
}

// flooding answers with a hundred megabytes inside a JSON string.
func flooding(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"errors":["`)
		part := strings.Repeat("x", 1<<20)
		for range 100 {
			if _, err := io.WriteString(w, part); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, `"]}`)
	}
}

// hanging holds a request until its client goes, which net/http sees once the
// request is read.
func hanging(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// slow answers after half a minute.
func slow(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-time.After(30 * time.Second):
		saying(http.StatusServiceUnavailable, `{"errors":["at last"]}`)(w, r)
	case <-r.Context().Done():
	}
}

// breaking ends the connection in the midst of an answer.
func breaking(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, `{"auth":{"client_token":"`)
	panic(http.ErrAbortHandler)
}
