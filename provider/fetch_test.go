package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/provider/template"
)

// engine has requests for a secrets engine answered otherwise.
func (v *fakeVault) engine(prefix string, do func(w http.ResponseWriter, r *http.Request)) {
	v.change(func() {
		v.override = func(w http.ResponseWriter, r *http.Request) bool {
			here := strings.HasPrefix(r.URL.Path, "/v1/"+prefix)
			if here {
				do(w, r)
			}
			return here
		}
	})
}

func breakDown(w http.ResponseWriter, _ *http.Request) {
	respondErrors(w, http.StatusInternalServerError, "failed to connect to database")
}

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// One secrets engine that fails, or takes requests and does not answer, is not taken
// for Vault: the others are asked, in the same refresh, and written.
func TestOneEngineDoesNotKeepOthersFromBeingAsked(t *testing.T) {
	t.Parallel()
	for name, engine := range map[string]http.HandlerFunc{"broken": breakDown, "hanging": hang} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.Manager.timeouts.request = time.Second
			r := h.request("v", `{{ with secret "database/static-creds/app" }}{{ .Data.username }}{{ end }}`, staticTemplate)
			h.publish(r)
			h.vault.engine("database/", engine)
			h.vault.change(func() { h.vault.static = "second" })
			h.time.Step(20 * time.Second)
			h.refresh("v")
			h.waitIdle()
			h.requireContent("v", "app|second")
			for _, due := range h.statuses()[0].Secrets {
				if failed := strings.HasPrefix(due.Path, "database/"); errors.Is(due.Err, ErrUnavailable) != failed || (due.Err != nil) != failed {
					t.Errorf("%s has the error %v", due.Path, due.Err)
				}
			}
		})
	}
}

// What has taken all the time of a refresh comes last in the next one, and what was
// not asked for is asked for at once.
func TestHangingEnginesStarveNobody(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.Manager.timeouts = timeouts{refresh: 5 * time.Second, fetch: 750 * time.Millisecond, request: 500 * time.Millisecond}
	templates := []string{staticTemplate}
	for i := range 3 * fetchConcurrency { // which come first, by their paths
		templates = append(templates, fmt.Sprintf(`{{ with secret "a/%d" }}{{ .Data.value }}{{ end }}`, i))
	}
	h.vault.engine("a/", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, map[string]any{"data": map[string]any{"value": "a"}})
	})
	h.publish(h.request("v", templates...))
	h.vault.change(func() { h.vault.static = "second" })
	h.vault.engine("a/", hang)
	h.time.Step(20 * time.Second)
	waitFor(t, func() bool {
		h.refresh("v") // on a busy machine, all that hangs takes the time of the first one
		return strings.HasPrefix(h.content("v"), "second|")
	})
	waitFor(t, func() bool { return errors.Is(h.statuses()[0].Err, ErrUnavailable) })
}

// A token is replaced up to an hour before its end. If nothing can be made under the
// new one just then, the leases under the old one go on for as long as that does.
func TestLeasesOfAnOldTokenAreRenewedWhereNothingReplacesThem(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.vault.change(func() {
		h.vault.tokenTTL, h.vault.tokenMax = 2*time.Hour, 2*time.Hour
		h.vault.leaseTTL, h.vault.leaseMax = 5*time.Minute, 24*time.Hour
	})
	h.publish(h.request("v", databaseTemplate))
	h.advance(time.Hour, func() { h.requireOpens("v") })
	var attempts atomic.Int32
	h.vault.engine("database/", func(w http.ResponseWriter, r *http.Request) {
		attempts.Add(1)
		breakDown(w, r)
	})
	before := 0
	h.advance(55*time.Minute, func() {
		h.requireOpens("v")
		if attempts.Load() == 0 {
			before = h.vault.count("sys/leases/renew")
		}
	})
	h.requireCount("auth/jwt/login", 2)
	// A failure counts once, though two things were tried, and waits grow; and a lease
	// is renewed where there is need, not at each attempt.
	if renewals := h.vault.count("sys/leases/renew") - before; attempts.Load() > 80 || renewals > int(attempts.Load())/2 {
		t.Errorf("%d attempts, %d renewals", attempts.Load(), renewals)
	}
	status := h.statuses()[0]
	if !errors.Is(status.Err, ErrUnavailable) || strings.Contains(status.Err.Error(), "renew") {
		t.Errorf("the volume's error is %v", status.Err)
	}
	if wait := status.Next.Sub(h.time.Now()); wait > maxTransientBackoff*5/4 {
		t.Errorf("the next attempt is after %s", wait)
	}
	h.vault.change(func() { h.vault.override = nil })
	h.advance(20*time.Minute, func() { h.requireOpens("v") })
	h.requireCount("database/creds/app", 2)
	if err := h.statuses()[0].Err; err != nil {
		t.Errorf("the volume's error is %v", err)
	}
}

// front lets requests through to the fake Vault, which answers one at a time, and
// notes how many are on their way at once.
type front struct {
	*httptest.Server
	mutex           sync.Mutex
	now, most, wait int
	together        chan struct{} // closed when as many as wait are there
	paths           []string
}

func (h *harness) behindFront(wait int) *front {
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
		h.vault.ServeHTTP(w, r)
	}))
	h.t.Cleanup(f.Close)
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
		"more than are sent": {3, 4, fetchConcurrency},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			f := h.behindFront(c.want)
			var templates []string
			for i := range c.files {
				var text strings.Builder
				for j := range c.each {
					fmt.Fprintf(&text, `{{ with secret "kv/app-%d" }}{{ .Data.value }} {{ end }}`, i*c.each+j)
				}
				templates = append(templates, text.String())
			}
			request := h.request("v", templates...)
			request.Endpoint.Address = f.URL
			contents, err := h.tryPublish(t.Context(), request)
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
	h := newHarness(t)
	request := h.request("v",
		`{{ with secret "transit/encrypt/app" "plaintext=eA==" }}{{ .Data.ciphertext }}{{ end }}`, staticTemplate,
		`{{ with secret "kv/forbidden" }}x{{ end }}`, `{{ with secret "kv/forbidden-as-well" }}x{{ end }}`)
	for i, name := range []string{"made", "static", "third", "fourth"} {
		request.Files[i].Template.Name = name
	}
	_, err := h.tryPublish(t.Context(), request)
	var file *FileError
	if !errors.As(err, &file) || file.Name != "third" || !strings.Contains(err.Error(), "kv/forbidden in Vault") {
		t.Errorf("got %v", err)
	}
	if got := h.vault.count("transit/encrypt/app"); got != 0 {
		t.Errorf("Vault has made %d things", got)
	}
}

// bigSecrets has the fake Vault answer each read of kv/big with a value, and counts
// the reads.
func (h *harness) bigSecrets(value any) *atomic.Int32 {
	reads := &atomic.Int32{}
	text, err := json.Marshal(map[string]any{"request_id": "1", "data": map[string]any{"v": value}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.vault.change(func() {
		h.vault.override = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasPrefix(r.URL.Path, "/v1/kv/big") {
				return false
			}
			reads.Add(1)
			_, _ = w.Write(text)
			return true
		}
	})
	return reads
}

// manyReads asks for a secret under n names.
func manyReads(n int) string {
	return fmt.Sprintf(`{{ range loop %d }}{{ with secret (printf "kv/big?n=%%d" .) }}x{{ end }}{{ end }}`, n)
}

// One template of a hundred bytes asks for a secret of 1 MB a thousand times. It is
// stopped at the limit of a volume, and the driver does not hold it all before.
func TestVolumeOfManyBigSecretsIsStoppedEarly(t *testing.T) {
	for name, value := range map[string]any{
		"long text":        strings.Repeat("0123456789abcdef", 1<<16),
		"many empty lists": json.RawMessage("[" + strings.Repeat("[],", 300_000) + "[]]"),
		"many objects":     json.RawMessage("[" + strings.Repeat("{},", 30_000) + "{}]"),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			reads := h.bigSecrets(value)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := h.tryPublish(t.Context(), h.request("v", manyReads(900)))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "split the volume") || len(err.Error()) > limits.ErrorBytes.Max() {
				t.Errorf("got %v", err)
			}
			if got, mebibytes := reads.Load(), (after.TotalAlloc-before.TotalAlloc)>>20; got > 32 || mebibytes > 200 {
				t.Errorf("%d reads allocated %d MiB in all", got, mebibytes)
			}
			if held := h.retained("v"); held != 0 {
				t.Errorf("a volume that is not published holds %d bytes", held)
			}
			// Nothing is left of the node's memory that it took.
			h.bigSecrets(strings.Repeat("x", 1<<20))
			h.publish(h.request("w", manyReads(7)))
		})
	}
}

func TestDependenciesOfAVolumeAtTheLimitAndOneAbove(t *testing.T) {
	h := newHarness(t)
	reads := h.bigSecrets("small")
	limit := limits.Dependencies.Max()
	h.publish(h.request("v", manyReads(limit)))
	if got := int(reads.Load()); got != limit {
		t.Errorf("%d reads, want %d", got, limit)
	}
	reads.Store(0)
	_, err := h.tryPublish(t.Context(), h.request("w", manyReads(limit), `{{ with secret "kv/big?one=more" }}x{{ end }}`))
	if !errors.Is(err, ErrTemplate) || !strings.Contains(err.Error(), "(dependencies); split the volume") {
		t.Errorf("got %v", err)
	}
	if got := reads.Load(); got != 0 {
		t.Errorf("Vault was asked %d times for a volume that asks too much", got)
	}
	// Computed from a secret, they are not known before.
	computed := func(name string) string {
		return fmt.Sprintf(`{{ with secret "kv/big" }}{{ $v := .Data.v }}{{ range loop %d }}{{ with secret (printf "kv/big?%s=%%s%%d" $v .) }}x{{ end }}{{ end }}{{ end }}`, limit/2, name)
	}
	if _, err := h.tryPublish(t.Context(), h.request("x", computed("a"), computed("b"))); !errors.Is(err, ErrTemplate) || !strings.Contains(err.Error(), "(dependencies)") {
		t.Errorf("computed: got %v", err)
	}
	if got := int(reads.Load()); got != 1 {
		t.Errorf("Vault was asked %d times, want the one secret that the paths are computed from", got)
	}
}

// What a volume holds is known while it is published, also to the next process.
func TestRetainedBytes(t *testing.T) {
	h := newHarness(t)
	h.bigSecrets(strings.Repeat("x", 1<<20))
	h.publish(h.request("v", manyReads(3)))
	const least, most = 3 << 20, 3<<20 + 64<<10
	if got := h.retained("v"); got < least || got > most {
		t.Errorf("three secrets of 1 MiB are %d bytes", got)
	}
	h.end()
	h.begin()
	if got := h.retained("v"); got < least || got > most {
		t.Errorf("after a restart, %d bytes", got)
	}
	h.bigSecrets("small")
	h.advance(DefaultInterval, func() {})
	if got := h.retained("v"); got == 0 || got > 64<<10 {
		t.Errorf("after a rotation to small secrets, %d bytes", got)
	}
	h.close("v")
}

// A secret that is read again does not count twice.
func TestRefreshOfAFullVolume(t *testing.T) {
	h := newHarness(t)
	n := limits.VolumeResponseBytes.Max()/(1<<20) - 1
	h.bigSecrets(strings.Repeat("x", 1<<20))
	h.publish(h.request("v", manyReads(n)))
	h.bigSecrets(strings.Repeat("y", 1<<20))
	h.advance(DefaultInterval, func() {})
	if status := h.statuses()[0]; status.Err != nil {
		t.Error(status.Err)
	}
}

// A renewed lease leaves its value where it is: it counts against what the same refresh
// reads.
func TestRenewedLeasesCountAgainstTheLimit(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	size := 1 << 20
	h.vault.engine("big/", func(w http.ResponseWriter, r *http.Request) {
		response := map[string]any{"data": map[string]any{"v": strings.Repeat("x", size)}}
		if strings.HasPrefix(r.URL.Path, "/v1/big/leased") {
			response = map[string]any{"data": map[string]any{"v": strings.Repeat("x", 3<<20)}, "lease_id": r.URL.Path, "lease_duration": 40, "renewable": true}
		}
		respond(w, response)
	})
	r := h.request("v", `{{ range $path := split "," "big/leased-1,big/leased-2,big/static" }}{{ with secret $path }}{{ end }}{{ end }}`)
	r.Refresh.StaticInterval = MinInterval
	h.publish(r)
	for _, path := range []string{"/v1/big/leased-1", "/v1/big/leased-2"} {
		token := fmt.Sprint("hvs.canary-", h.vault.count("auth/jwt/login"))
		h.vault.change(func() { h.vault.leases[path] = h.vault.newLifetime(time.Hour, time.Hour, token) })
	}
	size = 3 << 20
	h.time.Step(14 * time.Second) // the static secret is due, and the renewals
	h.waitIdle()
	if err := h.statuses()[0].Err; !errors.Is(err, ErrTooLarge) {
		t.Errorf("the volume's error is %v", err)
	}
	if got := h.vault.count("sys/leases/renew"); got != 2 {
		t.Errorf("%d leases were renewed, so nothing is tested", got)
	}
}

func TestSizeOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ values, objects int }{
		`{"a":"b"}`:                 {2, 1},
		`{"a":[1,null,{"b":true}]}`: {6, 2},
		`{"a":[[],[]],"c":"` + strings.Repeat("x", 100) + `"}`: {5, 1},
	} {
		secret := &api.Secret{}
		if err := json.Unmarshal([]byte(text), &secret.Data); err != nil {
			t.Fatal(err)
		}
		got := sizeOf(template.Value{Secret: secret})
		if got.Values != want.values || got.Objects != want.objects || got.Bytes < len(text) || got.Bytes > len(text)+300 {
			t.Errorf("%s: got %+v", text, got)
		}
	}
	if got := sizeOf(template.Value{Names: []string{"a", "bc"}}); got.Values != 2 || got.Bytes != 9 {
		t.Errorf("a list: %+v", got)
	}
}

func (h *harness) retained(volumeID string) int64 {
	v := h.mount(volumeID).getVolume()
	if v == nil {
		return 0
	}
	return v.RetainedBytes()
}

// While a candidate waits, the value that the files show is memory as well.
func TestRetainedBytesCountAcceptedValues(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	const size = 1 << 20
	values := map[string]string{"a": "x:" + strings.Repeat("1", size)}
	h.holdValues(values)
	h.publish(h.request("v", `{{ with secret "values/a" }}{{ index (.Data.value | split ":") 1 | len }}{{ end }}`))
	before := h.retained("v")
	h.vault.change(func() { values["a"] = strings.Repeat("2", size) })
	h.advance(DefaultInterval, func() {})
	if got := h.retained("v"); before < size || got < before+size {
		t.Errorf("a volume with %d bytes has %d with its candidate", before, got)
	}
	h.vault.change(func() { values["a"] = "x:3" })
	h.advance(maxBackoff, func() {})
	if got := h.retained("v"); got > before {
		t.Errorf("with the candidate accepted, it has %d bytes", got)
	}
}
