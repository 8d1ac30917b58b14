package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/provider/cost"
	"github.com/vaultmount/vaultmount/provider/fairqueue"
	"github.com/vaultmount/vaultmount/provider/limits"
)

func TestCounter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{
		``:                                     {},
		`null`:                                 {Values: 1},
		`-12.5e3`:                              {Values: 1},
		`"a\"b,{"`:                             {Values: 1},
		`[]`:                                   {Values: 1},
		`[1,true,null,"x",[ ] , {}]`:           {Values: 7, Objects: 1},
		`{"a":"b"}`:                            {Values: 2, Objects: 1},
		`{ "a" : { "b" : [ 1 , 2 ] } , "c":0}`: {Values: 6, Objects: 2},
		"[1\n,2\t]":                            {Values: 3},
	} {
		want.Bytes = len(text)
		for _, part := range []int{1, 3, len(text) + 1} {
			var c counter
			var sum Size
			for rest := []byte(text); len(rest) > 0; {
				n := min(part, len(rest))
				sum = sum.Add(c.count(rest[:n]))
				rest = rest[n:]
			}
			if sum != want || c.depth != 0 {
				t.Errorf("%s by %d bytes: got %+v at depth %d, want %+v", text, part, sum, c.depth, want)
			}
		}
	}
}

// FuzzCounter compares the counter with the decoder.
func FuzzCounter(f *testing.F) {
	f.Add(`{"a":[1,"\\\"",{"b":{}}],"":null}`)
	f.Add(`[true,false,-1e9]`)
	f.Fuzz(func(t *testing.T, text string) {
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			return
		}
		compact := &bytes.Buffer{}
		_ = json.Compact(compact, []byte(text))
		var got, again counter
		cost.Assert(t, len(text), func() { got.count([]byte(text)) })
		again.count(compact.Bytes())
		if got.size.Values != again.size.Values || got.size.Objects != again.size.Objects {
			t.Errorf("%q: %+v, and without space %+v", text, got.size, again.size)
		}
		// A member that is there twice is decoded once.
		if values, objects := countDecoded(value); got.size.Values < values || got.size.Objects < objects || got.depth != 0 {
			t.Errorf("%q: counted %+v, want at least %d values and %d objects", text, got.size, values, objects)
		}
	})
}

func countDecoded(value any) (values, objects int) {
	values = 1
	add := func(each any) {
		v, o := countDecoded(each)
		values, objects = values+v, objects+o
	}
	switch v := value.(type) {
	case []any:
		for _, each := range v {
			add(each)
		}
	case map[string]any:
		objects++
		for _, each := range v {
			add(each)
		}
	}
	return values, objects
}

// The estimate is at least what the decoder uses, for the most expensive values.
func TestMemoryOfDecodedValues(t *testing.T) {
	for _, value := range []string{`[]`, `{}`, `{"":0}`, `{"a":{"a":{}}}`, `0`, `""`, `null`, `[[[]]]`, `"abcdefgh"`} {
		text := []byte("[" + strings.Repeat(value+",", 30_000) + "0]")
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var decoded any
		decode(t, text, &decoded)
		runtime.GC()
		runtime.ReadMemStats(&after)
		var c counter
		c.count(text)
		if got, estimate := int64(after.HeapAlloc)-int64(before.HeapAlloc), c.size.Memory(); got > estimate {
			t.Errorf("%s: 30,000 take %d bytes, and the estimate is %d", value, got, estimate)
		}
		runtime.KeepAlive(decoded)
	}
}

func decode(t *testing.T, text []byte, into *any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

func TestQuotaAtTheLimitsOfAVolumeAndOneAbove(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size func(n int) Size
		max  int
		want string
	}{
		"bytes":  {func(n int) Size { return Size{Bytes: n} }, limits.VolumeResponseBytes.Max(), "(volume-response-bytes); read fewer or smaller secrets, or split the volume"},
		"values": {func(n int) Size { return Size{Values: n} }, limits.VolumeResponseValues.Max(), "(volume-response-values); read fewer"},
		"memory": {func(n int) Size { return Size{Objects: n} }, int(maxVolumeMemory / objectMemory), "bytes of memory, half of node-response-bytes; read fewer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := NewClientPool(Config{})
			half := test.max / 2
			q := pool.NewQuota("a", test.size(half))
			defer q.Close()
			if err := q.Take(test.size(test.max - half)); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			err := q.Take(test.size(1))
			if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), test.want) || len(err.Error()) > limits.ErrorBytes.Max() {
				t.Errorf("one above the limit: %v", err)
			}
			q.AddRetained(test.size(-1)) // which is about to be replaced
			if err := q.Take(test.size(1)); err != nil {
				t.Errorf("in the place of another: %v", err)
			}
		})
	}
}

// One tenant has half of the node's memory for responses, the next one half of the
// rest, and so there is always some left.
func TestTenantsShareTheNodesMemory(t *testing.T) {
	t.Parallel()
	pool := NewClientPool(Config{})
	left := int64(limits.NodeResponseBytes.Max())
	var all []*Quota
	for i := range 4 {
		tenant, taken := fmt.Sprint(i), int64(0)
		for {
			q := pool.NewQuota(tenant, Size{})
			all = append(all, q)
			if q.Take(Size{Bytes: smallVolumeMemory + 1<<20}) != nil {
				break
			}
			taken += 1 << 20
		}
		if want := left / 2; taken != want {
			t.Errorf("tenant %d took %d bytes of %d, want %d", i, taken, left, want)
		}
		left -= taken
	}
	small := pool.NewQuota("0", Size{})
	if err := small.Take(Size{Bytes: smallVolumeMemory}); err != nil {
		t.Errorf("a usual pod of a tenant that has its share: %v", err)
	}
	one := pool.NewQuota("0", Size{})
	if err := one.Take(Size{Bytes: smallVolumeMemory + 1}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "(node-response-bytes)") {
		t.Errorf("over the share: %v", err)
	}
	for _, q := range append(all, small, one) {
		q.Close()
		q.Close()
	}
	if f := pool.memory; f.free != int64(limits.NodeResponseBytes.Max()) || len(f.used) != 0 {
		t.Errorf("in the end %d bytes are free and %v are held", f.free, f.used)
	}
}

// Nobody waits for memory, so many volumes that want more than there is all end, and
// leave nothing.
func TestQuotasNeverDeadlock(t *testing.T) {
	t.Parallel()
	pool := NewClientPool(Config{})
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			q := pool.NewQuota(fmt.Sprint(i%7), Size{})
			defer q.Close()
			if q.Take(Size{Bytes: smallVolumeMemory}) != nil { // the rest is of the node's memory
				return
			}
			for range 100 {
				part := Size{Bytes: 64 << 10, Values: 10}
				if q.Take(part) != nil {
					return
				}
				if i%3 == 0 {
					q.undo(part)
				}
			}
		})
	}
	group.Wait()
	if f := pool.memory; f.free != int64(limits.NodeResponseBytes.Max()) || len(f.used) != 0 {
		t.Errorf("in the end %d bytes are free and %v are held", f.free, f.used)
	}
}

// A volume that reads more and more is stopped before it has read much more than it
// may keep. Failed responses do not count.
func TestResponsesOfAVolumeAreBoundedInSum(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	reads := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "internal/ui/mounts"):
			w.WriteHeader(http.StatusForbidden)
		case strings.HasSuffix(r.URL.Path, "/missing"):
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"errors":[%q]}`, strings.Repeat("x", size))
		default:
			reads++
			fmt.Fprintf(w, `{"request_id":"1","data":{"v":%q}}`, strings.Repeat("x", size-64))
		}
	}))
	t.Cleanup(server.Close)
	pool := NewClientPool(Config{})
	q := pool.NewQuota("a", Size{})
	ctx := WithQuota(fairqueue.WithTenant(t.Context(), "a"), q)
	client := newTestClient(t, pool, server.URL, ClientOptions{}, "token")
	for range 5 {
		if _, err := client.Read(ctx, "kv/data/missing"); errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	}
	var err error
	for err == nil && reads < 100 {
		_, err = client.Read(ctx, "kv/data/app")
	}
	// One more that does not fit, and the first that needed a place was dropped.
	if want := limits.VolumeResponseBytes.Max()/size + 2; !errors.Is(err, ErrTooLarge) || reads != want {
		t.Errorf("after %d reads, want %d: %v", reads, want, err)
	}
	q.Close()
	if f := pool.memory; f.free != int64(limits.NodeResponseBytes.Max()) {
		t.Errorf("%d bytes are free", f.free)
	}
}

// bigVault answers each read with 256 KiB. It reports the reads below hang/ and answers
// them when it is closed.
func bigVault(t *testing.T) (address string, hanging <-chan struct{}) {
	t.Helper()
	hangs := make(chan struct{}, 100)
	body := fmt.Sprintf(`{"request_id":"1","data":{"v":%q}}`, strings.Repeat("x", 1<<18))
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "internal/ui/mounts"):
			w.WriteHeader(http.StatusForbidden)
		case strings.Contains(r.URL.Path, "/hang/"):
			hangs <- struct{}{}
			select {
			case <-ended:
			case <-r.Context().Done():
			}
		default:
			_, _ = io.WriteString(w, body)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(ended) })
	return server.URL, hangs
}

// Many volumes of six times 256 KiB wait for each other, and none fails. What they have
// in memory at one time is bounded.
func TestManyLargeVolumesAllPass(t *testing.T) {
	t.Parallel()
	address, _ := bigVault(t)
	pool := NewClientPool(Config{})
	client := newTestClient(t, pool, address, ClientOptions{Timeout: time.Minute}, "token")
	var group sync.WaitGroup
	for i := range 3 * largeVolumeSlots {
		group.Go(func() {
			tenant := fmt.Sprint(i % 3)
			q := pool.NewQuota(tenant, Size{})
			defer q.Close()
			ctx := WithQuota(fairqueue.WithTenant(t.Context(), tenant), q)
			var reads sync.WaitGroup
			for range 6 {
				reads.Go(func() {
					if _, err := client.Read(ctx, "kv/data/big"); err != nil {
						t.Errorf("tenant %s: %v", tenant, err)
					}
				})
			}
			reads.Wait()
		})
	}
	group.Wait()
	if f := pool.memory; f.free != int64(limits.NodeResponseBytes.Max()) || len(f.used) != 0 || pool.largeReads.Waiting() != 0 {
		t.Errorf("in the end %d bytes are free, %v are held and %d wait", f.free, f.used, pool.largeReads.Waiting())
	}
}

// A tenant whose large volumes hang delays only its own large volumes, and no shared call.
func TestLargeVolumesThatHang(t *testing.T) {
	t.Parallel()
	address, hanging := bigVault(t)
	pool := NewClientPool(Config{})
	client := newTestClient(t, pool, address, ClientOptions{Timeout: time.Minute}, "token")
	read := func(ctx context.Context, tenant string, paths ...string) error {
		q := pool.NewQuota(tenant, Size{})
		defer q.Close()
		for _, path := range paths {
			if _, err := client.Read(WithQuota(fairqueue.WithTenant(ctx, tenant), q), path); err != nil {
				return err
			}
		}
		return nil
	}
	evil, end := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range largeVolumeSlots {
		group.Go(func() { _ = read(evil, "evil", "kv/data/big", "kv/data/hang/x") })
	}
	for range largeVolumeSlots / 2 { // which is all that the tenant gets
		<-hanging
	}
	for _, tenant := range []string{"a", "b", "a"} {
		if err := read(t.Context(), tenant, "kv/data/big", "kv/data/big"); err != nil {
			t.Errorf("a large volume of tenant %s: %v", tenant, err)
		}
	}
	if err := read(WithSharedCall(t.Context()), "evil", "kv/data/big"); err != nil {
		t.Errorf("the tenant's own, while others wait for it: %v", err)
	}
	end()
	group.Wait()
}
