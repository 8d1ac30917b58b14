package component

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/postgres"
	"github.com/vaultmount/vaultmount/test/rig"
)

// longRun makes tests last for minutes, through many rotations (make soak).
// Without it they last for a rotation or two.
const longRun = "VAULTMOUNT_LONG"

// span chooses by it.
func span(short, long time.Duration) time.Duration {
	if os.Getenv(longRun) != "" {
		return long
	}
	return short
}

// processNode is a node whose driver is a process of its own, which can be killed.
type processNode struct {
	*node
	address string
	process *rig.Process
}

func startProcessNode(t *testing.T, fixture *lastingFixture) *processNode {
	t.Helper()
	n := &processNode{
		node:    &node{Vault: fixture.Vault, kubelet: rig.NewKubelet(t)},
		address: fixture.Server.Address,
	}
	n.calls = rig.Calls(n.endpoint())
	n.process = rig.StartProcess(t, n.kubelet, n.address)
	return n
}

func (n *processNode) startAgain(t *testing.T) {
	t.Helper()
	n.process = rig.StartProcess(t, n.kubelet, n.address)
}

// republish calls as the kubelet does at each sync of the pod, until the function
// that it returns is called. Errors are the kubelet's to retry, as long as the
// last call succeeds.
func (n *node) republish(t *testing.T, request *csi.NodePublishVolumeRequest, every time.Duration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			call, cancel := context.WithTimeout(ctx, 2*time.Minute)
			_, _ = n.calls.NodePublishVolume(call, request)
			cancel()
		}
	})
	return sync.OnceFunc(func() {
		cancel()
		ended.Wait()
		if _, err := n.calls.NodePublishVolume(t.Context(), request); err != nil {
			t.Errorf("the last republish: %v", err)
		}
	})
}

const (
	leaseTTL    = 20 * time.Second
	leaseMaxTTL = time.Minute
)

// requireRoles compares with what the max TTL forces in a time, and with what is
// forced by something else, within one.
func requireRoles(t *testing.T, made int, length time.Duration, more int) {
	t.Helper()
	forced := 1 + int(length/leaseMaxTTL) + more
	t.Logf("%d roles in %s, %d forced", made, length.Round(time.Second), forced)
	if made < forced-1 || made > forced+1 {
		t.Errorf("%d roles were made in %s, want %d within one", made, length.Round(time.Second), forced)
	}
}

// Whenever an application opens a session with the credentials in its file, they
// are good, and Vault makes no more of them than it must. A static secret in the
// same volume is read at its interval, and does not cost credentials.
func TestDynamicCredentialsAreAlwaysGood(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	database := startDatabase(t, fixture, leaseTTL, leaseMaxTTL)
	n := startNode(t, fixture.Server.Address, fixture.Vault)
	request := n.request(t, "app", map[string]string{
		"role": "database", "template/credentials": databaseTemplate,
		"template/db": connectionTemplate, "static-secret-render-interval": "10s",
	})
	begin := time.Now()
	n.mustPublish(t, request)
	stopKubelet := n.republish(t, request, 25*time.Second)
	app := &application{database: database, file: rig.VolumeFile(request, "credentials")}
	stopApp := app.start(t)
	rotate(t, fixture.Vault)
	pass(t, span(75*time.Second, 5*time.Minute))
	stopApp()
	stopKubelet()
	app.requireNoGap(t, false)
	requireRoles(t, rolesMade(t, database), time.Since(begin), 0)
	if got := fixture.requests(t, "update", "auth/jwt/login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	if got := fixture.requests(t, "read", "internal/data/database/config"); got < 4 {
		t.Errorf("the static secret was read %d times, too seldom to prove anything", got)
	}
	if got := mustRead(t, rig.VolumeFile(request, "db")); got != rotated {
		t.Errorf("the file of the static secret holds %q", got)
	}
	requireRevoked(t, n, request, database)
}

// requireRevoked removes the volume, and with it its role in the database.
func requireRevoked(t *testing.T, n *node, request *csi.NodePublishVolumeRequest, database *postgres.Server) {
	t.Helper()
	begin := time.Now()
	n.mustUnpublish(t, request)
	rig.Eventually(t, "the role is gone from the database", func() bool { return rolesThere(t, database) == 0 })
	took := time.Since(begin)
	t.Logf("the role is gone after %s", took.Round(time.Millisecond))
	if took > 5*time.Second && os.Getenv(longRun) != "" {
		t.Error("that is more than 5 s")
	}
}

// pass lets a time of the scenario go by.
func pass(t *testing.T, length time.Duration) {
	t.Helper()
	select {
	case <-time.After(length):
	case <-t.Context().Done():
	}
}

// event is what happens at a time after the begin.
type event struct {
	at time.Duration
	do func() error
}

func play(t *testing.T, begin time.Time, story []event) {
	t.Helper()
	slices.SortStableFunc(story, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	for _, next := range story {
		pass(t, time.Until(begin.Add(next.at)))
		require.NoError(t, next.do())
	}
}

// The same while the driver is killed over and over, Vault is sealed for a time, and
// starts again: what was in memory does not matter.
func TestDynamicCredentialsSurviveKills(t *testing.T) {
	t.Parallel()
	fixture := startLastingVault(t)
	database := startDatabase(t, fixture, leaseTTL, leaseMaxTTL)
	n := startProcessNode(t, fixture)
	request := n.request(t, "app", map[string]string{"role": "database", "template/credentials": databaseTemplate})
	begin := time.Now()
	n.mustPublish(t, request)
	stopKubelet := n.republish(t, request, 25*time.Second)
	app := &application{database: database, file: rig.VolumeFile(request, "credentials")}
	stopApp := app.start(t)

	length, sealed := span(75*time.Second, 5*time.Minute), span(8*time.Second, 90*time.Second)
	every := span(7*time.Second, 20*time.Second)
	story := []event{
		{length / 2, func() error { return fixture.durable.Seal(t.Context()) }},
		{length/2 + sealed, func() error { return fixture.durable.Unseal(t.Context()) }},
		{length * 9 / 10, func() error { return fixture.durable.Restart(t.Context()) }},
		{length, func() error { return nil }},
	}
	for at := every; at < length; at += every {
		story = append(story, event{at, func() error {
			n.process.Kill(t)
			n.startAgain(t)
			return nil
		}})
	}
	play(t, begin, story)
	stopKubelet()
	stopApp()
	app.requireNoGap(t, sealed > leaseTTL)
	alive, more := time.Since(begin), 0
	if sealed > leaseTTL {
		// The lease ends meanwhile, none follows until Vault is unsealed, and then one
		// does before the max TTL.
		alive, more = alive-sealed, 1
	}
	requireRoles(t, rolesMade(t, database), alive, more)
	if got := fixture.requests(t, "update", "auth/jwt/login"); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
	requireRevoked(t, n.node, request, database)
}
