package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
	"github.com/vaultmount/vaultmount/provider/template/templatetest"
)

// bigSecrets has the played Vault answer each read of kv/big with a value, and counts
// the reads.
func (b *bench) bigSecrets(value any) *atomic.Int32 {
	reads := &atomic.Int32{}
	text, err := json.Marshal(map[string]any{"request_id": "1", "data": map[string]any{"v": value}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.vault.change(func() {
		b.vault.instead = func(w http.ResponseWriter, r *http.Request) bool {
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
			b := newBench(t)
			reads := b.bigSecrets(value)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := b.Open(t.Context(), b.request("v", manyReads(900)))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "split the volume") || len(err.Error()) > limits.ErrorBytes.Max() {
				t.Errorf("got %v", err)
			}
			if got, mebibytes := reads.Load(), (after.TotalAlloc-before.TotalAlloc)>>20; got > 32 || mebibytes > 200 {
				t.Errorf("%d reads allocated %d MiB in all", got, mebibytes)
			}
			if held := b.RetainedBytes("v"); held != 0 {
				t.Errorf("a volume that is not published holds %d bytes", held)
			}
			// Nothing is left of the node's memory that it took.
			b.bigSecrets(strings.Repeat("x", 1<<20))
			b.open(b.request("w", manyReads(7)))
		})
	}
}

func TestDependenciesOfAVolumeAtTheLimitAndOneAbove(t *testing.T) {
	b := newBench(t)
	reads := b.bigSecrets("small")
	limit := limits.Dependencies.Max()
	b.open(b.request("v", manyReads(limit)))
	if got := int(reads.Load()); got != limit {
		t.Errorf("%d reads, want %d", got, limit)
	}
	reads.Store(0)
	_, err := b.Open(t.Context(), b.request("w", manyReads(limit), `{{ with secret "kv/big?one=more" }}x{{ end }}`))
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
	if _, err := b.Open(t.Context(), b.request("x", computed("a"), computed("b"))); !errors.Is(err, ErrTemplate) || !strings.Contains(err.Error(), "(dependencies)") {
		t.Errorf("computed: got %v", err)
	}
	if got := int(reads.Load()); got != 1 {
		t.Errorf("Vault was asked %d times, want the one secret that the paths are computed from", got)
	}
}

// What a volume holds is known while it is published, also to the next process.
func TestRetainedBytes(t *testing.T) {
	b := newBench(t)
	b.bigSecrets(strings.Repeat("x", 1<<20))
	b.open(b.request("v", manyReads(3)))
	const least, most = 3 << 20, 3<<20 + 64<<10
	if got := b.RetainedBytes("v"); got < least || got > most {
		t.Errorf("three secrets of 1 MiB are %d bytes", got)
	}
	b.end()
	b.begin()
	if got := b.RetainedBytes("v"); got < least || got > most {
		t.Errorf("after a restart, %d bytes", got)
	}
	b.bigSecrets("small")
	b.pass(DefaultInterval, func() {})
	if got := b.RetainedBytes("v"); got == 0 || got > 64<<10 {
		t.Errorf("after a rotation to small secrets, %d bytes", got)
	}
	b.Close("v")
	if got := b.RetainedBytes("v"); got != 0 {
		t.Errorf("when it is gone, %d bytes", got)
	}
}

// A secret that is read again does not count twice.
func TestRefreshOfAFullVolume(t *testing.T) {
	b := newBench(t)
	n := limits.VolumeResponseBytes.Max()/(1<<20) - 1
	b.bigSecrets(strings.Repeat("x", 1<<20))
	b.open(b.request("v", manyReads(n)))
	b.bigSecrets(strings.Repeat("y", 1<<20))
	b.pass(DefaultInterval, func() {})
	if status := b.Volumes()[0]; status.Err != nil {
		t.Error(status.Err)
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
		got := sizeOf(render.Value{Secret: secret})
		if got.Values != want.values || got.Objects != want.objects || got.Bytes < len(text) || got.Bytes > len(text)+300 {
			t.Errorf("%s: got %+v", text, got)
		}
	}
	if got := sizeOf(render.Value{Names: []string{"a", "bc"}}); got.Values != 2 || got.Bytes != 9 {
		t.Errorf("a list: %+v", got)
	}
}

// The requests of a volume are those of its pod's namespace, in the foreground and in
// the background.
func TestRequestsAreOfThePodsNamespace(t *testing.T) {
	b := newBench(t)
	r := b.request("v", databaseTemplate)
	r.Pod = "shop/web"
	v := newVolume(b.Provider, r)
	if got := v.namespace; got != "shop" {
		t.Errorf("the tenant is %q", got)
	}
	heard := map[string]bool{}
	b.Provider.renderer = rendererFunc(func(tenant string) { heard[tenant] = true })
	r.Files[0].Template.Text = `{{ $x := secret "database/creds/app" }}{{ $x.Data.username | toUpper }}`
	b.open(r)
	b.pass(time.Minute, func() {})
	if len(heard) != 1 || !heard["shop"] {
		t.Errorf("templates ran for the tenants %v", heard)
	}
	b.Provider.mutex.Lock()
	defer b.Provider.mutex.Unlock()
	for _, s := range b.Provider.sessions {
		if got := s.namespace; got != "shop" {
			t.Errorf("the session is of %q", got)
		}
	}
}

// rendererFunc tells for whom a template runs.
type rendererFunc func(tenant string)

// Render implements Renderer.
func (f rendererFunc) Render(ctx context.Context, templates []render.Template, known render.Values) ([]render.Result, error) {
	f(fairqueue.Tenant(ctx))
	return templatetest.Renderer{}.Render(ctx, templates, known)
}

// While a candidate waits, the value that the files show is memory as well.
func TestRetainedBytesCountAcceptedValues(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const size = 1 << 20
	values := map[string]string{"a": "x:" + strings.Repeat("1", size)}
	b.holdValues(values)
	b.open(b.request("v", `{{ with secret "values/a" }}{{ index (.Data.value | split ":") 1 | len }}{{ end }}`))
	before := b.RetainedBytes("v")
	b.vault.change(func() { values["a"] = strings.Repeat("2", size) })
	b.pass(DefaultInterval, func() {})
	if got := b.RetainedBytes("v"); before < size || got < before+size {
		t.Errorf("a volume with %d bytes has %d with its candidate", before, got)
	}
	b.vault.change(func() { values["a"] = "x:3" })
	b.pass(longestBackoff, func() {})
	if got := b.RetainedBytes("v"); got > before {
		t.Errorf("with the candidate accepted, it has %d bytes", got)
	}
}
