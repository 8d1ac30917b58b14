package provider

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// front lets requests through to the played Vault, which answers one at a time, and
// notes how many are on their way at once.
type front struct {
	*httptest.Server
	mutex           sync.Mutex
	now, most, wait int
	together        chan struct{} // closed when as many as wait are there
	paths           []string
}

func (b *bench) behindFront(wait int) *front {
	f := &front{wait: wait, together: make(chan struct{})}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/kv/") {
			f.enter(r.URL.Path)
			defer f.leave()
		}
		if strings.HasPrefix(r.URL.Path, "/v1/kv/app-") {
			respond(w, map[string]any{"data": map[string]any{"value": r.URL.Path}})
			return
		}
		b.vault.ServeHTTP(w, r)
	}))
	b.t.Cleanup(f.Close)
	return f
}

func (f *front) enter(path string) {
	f.mutex.Lock()
	f.paths = append(f.paths, path)
	f.now++
	f.most = max(f.most, f.now)
	if f.now == f.wait {
		close(f.together)
	}
	f.mutex.Unlock()
	select {
	case <-f.together:
	case <-time.After(5 * time.Second): // the test says so
	}
}

func (f *front) leave() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.now--
}

// A pod with many files waits for its secrets at once, not for one after the other.
func TestOpenReadsSecretsAtOnce(t *testing.T) {
	for name, c := range map[string]struct{ files, each, want int }{
		"of several files":   {5, 1, 5},
		"of one file":        {1, 5, 5},
		"more than are sent": {3, 4, atATime},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			f := b.behindFront(c.want)
			var templates []string
			for i := range c.files {
				var text strings.Builder
				for j := range c.each {
					fmt.Fprintf(&text, `{{ with secret "kv/app-%d" }}{{ .Data.value }} {{ end }}`, i*c.each+j)
				}
				templates = append(templates, text.String())
			}
			request := b.request("v", templates...)
			request.Endpoint.Address = f.URL
			contents, err := b.Open(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for i, content := range contents {
				if want := fmt.Sprintf("/v1/kv/app-%d ", i*c.each); !strings.HasPrefix(string(content.Content), want) {
					t.Errorf("file %d: %q", i, content.Content)
				}
			}
			if f.most != c.want || len(f.paths) != c.files*c.each {
				t.Errorf("%d at once and %d in all, want %d of %d", f.most, len(f.paths), c.want, c.files*c.each)
			}
		})
	}
}

// What cannot be read is told of the file that asks it, and Vault makes nothing for
// a volume that will not be.
func TestOpenTellsWhichFileLacksASecret(t *testing.T) {
	b := newBench(t)
	request := b.request("v",
		`{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`, staticTemplate,
		`{{ with secret "kv/forbidden" }}x{{ end }}`, `{{ with secret "kv/forbidden-as-well" }}x{{ end }}`)
	for i, name := range []string{"made", "static", "third", "fourth"} {
		request.Files[i].Template.Name = name
	}
	_, err := b.Open(t.Context(), request)
	var file *FileError
	if !errors.As(err, &file) || file.Name != "third" || !strings.Contains(err.Error(), "kv/forbidden in Vault") {
		t.Errorf("got %v", err)
	}
	if got := b.vault.count("transit/encrypt/app"); got != 0 {
		t.Errorf("Vault has made %d things", got)
	}
}

// What Vault has made for a pod is kept for its next attempt, whatever else failed
// at the same time.
func TestOpenKeepsWhatCameBesideAFailure(t *testing.T) {
	b := newBench(t)
	both := b.request("v", databaseTemplate, `{{ with secret "kv/forbidden" }}x{{ end }}`)
	b.open(b.request("other", staticTemplate)) // keeps the session
	for range 3 {
		if _, err := b.Open(t.Context(), both); err == nil {
			t.Fatal("a volume without its secret is open")
		}
	}
	if got := b.vault.count("database/creds/app"); got != 1 {
		t.Errorf("Vault has made %d credentials", got)
	}
}
