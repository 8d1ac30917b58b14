package vault

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/fairqueue"
)

// idleServers are servers whose time is the test's.
func idleServers() (servers *Servers, pass func(time.Duration)) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	return NewServers(klog.Background(), func() time.Time { return now }), func(d time.Duration) { now = now.Add(d) }
}

func endpointOf(i int) Endpoint {
	return Endpoint{Address: "https://vault:8200", ServerName: fmt.Sprint(i)}
}

func (s *Servers) mustAcquire(t *testing.T, endpoint Endpoint) *server {
	t.Helper()
	used, err := s.acquire(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// A cluster whose pods bring certificates of their own must not make the driver
// keep a transport for each pod that ever was.
func TestServersAreForgotten(t *testing.T) {
	t.Parallel()
	servers, pass := idleServers()
	var used []*server
	for i := range 2 * mostIdle {
		used = append(used, servers.mustAcquire(t, endpointOf(i)))
	}
	if again := servers.mustAcquire(t, endpointOf(0)); again != used[0] {
		t.Error("an endpoint in use was opened twice")
	}
	for _, each := range used {
		pass(time.Millisecond)
		servers.release(each)
	}
	if got, want := len(servers.open), mostIdle+1; got != want {
		t.Errorf("%d servers are kept, want %d", got, want)
	}
	if servers.open[endpointOf(0)] != used[0] || servers.open[endpointOf(mostIdle-1)] != nil || servers.open[endpointOf(mostIdle)] == nil {
		t.Error("those that were idle for longest are not the ones that are gone")
	}
	pass(idleFor)
	servers.release(used[0])
	if got := len(servers.open); got != 1 {
		t.Errorf("after %s, %d servers are kept, want the one that was just used", idleFor, got)
	}
	if got := servers.places[endpointOf(0).Address].servers; len(servers.places) != 1 || got != 1 {
		t.Errorf("%d addresses have places, the one in use for %d servers", len(servers.places), got)
	}
}

// A tenant that names a new address each time leaves nothing behind, and does not push
// out what others have learnt of their Vaults.
func TestTenantFloodsWithAddresses(t *testing.T) {
	t.Parallel()
	servers, pass := idleServers()
	evil := fairqueue.WithTenant(t.Context(), "evil")
	victims := func() (kept int) {
		for i := range mostIdleOfTenant / 2 {
			if servers.open[endpointOf(i)] != nil {
				kept++
			}
		}
		return kept
	}
	for i := range mostIdleOfTenant / 2 {
		used, err := servers.acquire(fairqueue.WithTenant(t.Context(), "victim"), endpointOf(i))
		if err != nil {
			t.Fatal(err)
		}
		servers.release(used)
	}
	for i := range 1000 {
		pass(time.Millisecond)
		used, err := servers.acquire(evil, Endpoint{Address: fmt.Sprintf("https://%d.tenants.example.com", i)})
		if err != nil {
			t.Fatal(err)
		}
		servers.release(used)
	}
	if got := victims(); got != mostIdleOfTenant/2 {
		t.Errorf("%d of %d servers of another tenant are left", got, mostIdleOfTenant/2)
	}
	if got, want := len(servers.places), mostIdleOfTenant+1; got != want || len(servers.open) != mostIdleOfTenant+mostIdleOfTenant/2 {
		t.Errorf("places for %d addresses, want %d, and %d servers", got, want, len(servers.open))
	}
	pass(idleFor)
	servers.HeldBack()
	if len(servers.open) != 0 || len(servers.places) != 0 {
		t.Errorf("in the end there are %d servers, and places for %d addresses", len(servers.open), len(servers.places))
	}
}

func TestServersInUseOfATenantAtTheLimitAndOneAbove(t *testing.T) {
	t.Parallel()
	servers, _ := idleServers()
	evil := fairqueue.WithTenant(t.Context(), "evil")
	for i := range mostInUse {
		if _, err := servers.acquire(evil, endpointOf(i)); err != nil {
			t.Fatalf("server %d: %v", i+1, err)
		}
	}
	if _, err := servers.acquire(evil, endpointOf(mostInUse)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("one above the limit: %v", err)
	}
	if _, err := servers.acquire(fairqueue.WithTenant(t.Context(), "victim"), endpointOf(mostInUse)); err != nil {
		t.Errorf("another tenant: %v", err)
	}
}

// What a server that takes any role, and has any mount, has the driver remember.
func TestWhatIsLearntIsBounded(t *testing.T) {
	t.Parallel()
	tastes, mounts := newTastes(), newMounts()
	for i := range 3 * maxMounts {
		tastes.note(taker{role: fmt.Sprint(i)}, true)
		mounts.remember(mount{path: fmt.Sprint(i, "/")})
	}
	if len(tastes.other) > maxTastes || len(mounts.known) > maxMounts {
		t.Errorf("%d roles and %d mounts are remembered", len(tastes.other), len(mounts.known))
	}
	last := fmt.Sprint(3*maxMounts-1, "/")
	if _, known := mounts.find("", last+"app"); !known || !tastes.forOther(taker{role: fmt.Sprint(3*maxMounts - 1)}) {
		t.Error("the last is not known")
	}
}

// Certificates that were rotated away leave servers behind, which must not cost the
// one in use what it has learnt: sessions last for one go, so it is idle in between.
func TestServerInUseOutlastsThoseThatAreNot(t *testing.T) {
	t.Parallel()
	var probes, reads atomic.Int32
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "internal/ui/mounts") {
			probes.Add(1)
			_, _ = io.WriteString(w, ofVersion1)
			return
		}
		reads.Add(1)
		_, _ = io.WriteString(w, `{"request_id":"1","data":{"v":"one"}}`)
	}))
	defer vault.Close()
	servers, pass := idleServers()
	read := func(generation int) error {
		session, err := servers.Resume(t.Context(), Endpoint{Address: vault.URL, ServerName: fmt.Sprint(generation)}, Options{MaxRetries: NoRetries}, Token{Secret: "token"})
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		_, err = session.Read(t.Context(), "kv/app")
		return err
	}
	const generations, refreshes = 2 * mostIdle, 10
	for i := range generations {
		if err := read(i); err != nil {
			t.Fatal(err)
		}
	}
	for range refreshes {
		pass(5 * time.Minute)
		if err := read(generations); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := probes.Load(), int32(generations+1); got != want || reads.Load() != generations+refreshes {
		t.Errorf("%d probes for %d reads, want %d", got, reads.Load(), want)
	}

	vault.Close()
	for range failuresToOpen {
		pass(30 * time.Second)
		_ = read(generations)
	}
	if err := read(generations); err == nil || !strings.Contains(err.Error(), errBreakerOpen.Error()) {
		t.Errorf("in an outage, a read says %v", err)
	}
}

// Only a request closes a circuit, so the one of an endpoint that nobody uses any
// more stays open.
func TestHeldBackLeavesOutWhatNobodyUses(t *testing.T) {
	t.Parallel()
	for name, inUse := range map[string]bool{"in use": true, "idle": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const address = "http://127.0.0.1:1"
			servers, pass := idleServers()
			used := servers.mustAcquire(t, Endpoint{Address: address})
			for range failuresToOpen {
				_, _ = servers.Login(t.Context(), Endpoint{Address: address}, Options{MaxRetries: NoRetries}, Login{Mount: "auth/jwt"})
			}
			if !inUse {
				servers.release(used)
			}
			pass(idleFor - time.Second)
			if !servers.HeldBack()[address] {
				t.Error("nothing is held back after an outage")
			}
			pass(time.Second)
			if held, told := servers.HeldBack()[address]; held != inUse || told != inUse {
				t.Errorf("later, held back is %t, and told %t", held, told)
			}
		})
	}
}
