package faults

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// soakVariable is for how long the node is soaked: a Go duration. Without it, it is
// a small node for seconds.
const soakVariable = "VAULTMOUNT_SOAK"

// A node full of volumes, whose secret is rotated over and over while what it depends
// on fails: each rotation arrives in every volume, whole; no fault costs a login; and
// in the end nothing is left, and the driver is no larger than it was.
func TestSoak(t *testing.T) {
	count, length := 20, 15*time.Second
	if text := os.Getenv(soakVariable); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("$%s: %v; write for example 30m", soakVariable, err)
		}
		count = 200
	}
	s := startSoak(t, count)
	for s.rounds == 0 || time.Since(s.begin) < length {
		s.round(t)
	}
	s.finish(t)
}

// soak is a node, and what is counted of it.
type soak struct {
	*node

	begin  time.Time
	server *vaultserver.Durable
	random *rand.Rand
	// volumes by the names of their pods.
	volumes map[string]*csi.NodePublishVolumeRequest
	pods    []string

	generation, rounds, sessions int
	faults                       map[string]int
	seen                         []time.Duration // until each rotation was in all volumes, after the fault's end
	first                        taken
}

func startSoak(t *testing.T, count int) *soak {
	t.Helper()
	server := vaultserver.DurableForTest(t)
	vault := rig.SetUpVault(t, server.Server)
	// Each token is renewed several times a minute.
	vault.SetTokenTTL(t, time.Minute)
	s := &soak{server: server, random: rig.NewRandom(t), volumes: map[string]*csi.NodePublishVolumeRequest{}, faults: map[string]int{}}
	s.node = startNode(t, vault, server.Address, soakArguments()...)
	s.rotate(t)
	for i := range count {
		s.pods = append(s.pods, fmt.Sprintf("pod-%d", i))
	}
	if s.come(t, s.pods); t.Failed() {
		t.FailNow() // a node that is not full proves nothing
	}
	s.first, s.begin = s.taken(t), time.Now()
	return s
}

// soakArguments keep hours of a node's log small, and let all its volumes in.
func soakArguments() []string { return []string{"--verbosity=0", "--volume-size=256Ki"} }

func (s *soak) rotate(t *testing.T) {
	t.Helper()
	s.generation++
	s.Vault.SetPassword(t, password(s.generation))
}

// come has pods start, each with the tokens of its day.
func (s *soak) come(t *testing.T, pods []string) {
	t.Helper()
	var requests []*csi.NodePublishVolumeRequest
	for _, pod := range pods {
		attributes := generations()
		attributes["static-secret-render-interval"] = "10s" // the shortest
		s.volumes[pod] = s.request(t, pod, attributes)
		requests = append(requests, s.volumes[pod])
	}
	s.atOnce(t, requests, s.open)
	s.sessions += len(pods)
}

// leave has pods end.
func (s *soak) leave(t *testing.T, pods []string) {
	t.Helper()
	var requests []*csi.NodePublishVolumeRequest
	for _, pod := range pods {
		requests = append(requests, s.volumes[pod])
		delete(s.volumes, pod)
	}
	s.atOnce(t, requests, s.close)
}

// round replaces some pods, rotates the secret, and lets something fail.
func (s *soak) round(t *testing.T) {
	t.Helper()
	s.rounds++
	s.random.Shuffle(len(s.pods), func(i, j int) { s.pods[i], s.pods[j] = s.pods[j], s.pods[i] })
	some := s.pods[:1+s.random.IntN(len(s.pods)/10)]
	s.leave(t, some)
	s.come(t, some)
	s.rotate(t)
	names := []string{"driver killed", "driver handed off", "Vault killed", "Vault sealed", "Vault slow", "none"}
	name := names[s.random.IntN(len(names))]
	s.faults[name]++
	lasts := time.Duration(s.random.Int64N(int64(5 * time.Second)))
	s.suffer(t, name, lasts)
	begin := time.Now()
	rig.Eventually(t, fmt.Sprintf("generation %d is in all volumes after %q", s.generation, name), func() bool { return s.isEverywhere(t, name) })
	s.seen = append(s.seen, time.Since(begin))
	t.Logf("after %s: round %d, %d pods replaced, fault: %s, for %s; rotated in all volumes %s after it", time.Since(s.begin).Round(time.Second),
		s.rounds, len(some), name, lasts.Round(100*time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
}

// suffer lets a fault last for a time.
func (s *soak) suffer(t *testing.T, name string, length time.Duration) {
	t.Helper()
	lasts := func() { time.Sleep(length) }
	switch name {
	case "driver killed":
		lasts()
		s.Process.Kill(t)
		s.Process = rig.StartProcess(t, s.Kubelet, s.Address, soakArguments()...)
		s.AwaitDriver(t)
	case "driver handed off":
		lasts()
		old := s.Process
		s.Process = rig.StartProcess(t, s.Kubelet, s.Address, soakArguments()...)
		rig.Eventually(t, "the new process is a standby", func() bool {
			return strings.Contains(s.Process.Log.String(), "Another instance is active; entering standby")
		})
		old.Stop(t)
		s.AwaitDriver(t)
	case "Vault killed":
		s.server.Kill()
		lasts()
		require.NoError(t, s.server.Restart(t.Context()))
	case "Vault sealed":
		require.NoError(t, s.server.Seal(t.Context()))
		lasts()
		require.NoError(t, s.server.Unseal(t.Context()))
	case "Vault slow": // answers come as late as this lasts
		require.NoError(t, s.server.Pause())
		lasts()
		require.NoError(t, s.server.Continue())
	}
}

// isEverywhere looks at all volumes, which are whole at any time.
func (s *soak) isEverywhere(t *testing.T, fault string) bool {
	t.Helper()
	everywhere := true
	for pod, request := range s.volumes {
		seen, err := readGeneration(request.GetTargetPath())
		if err != nil || seen == 0 || seen > s.generation {
			t.Fatalf("after %q, %s holds generation %d of %d, %v", fault, pod, seen, s.generation, err)
		}
		everywhere = everywhere && seen == s.generation
	}
	return everywhere
}

// finish has all pods end, and reports.
func (s *soak) finish(t *testing.T) {
	t.Helper()
	volumes, err := status.Client{Socket: kubeletplugin.StatusSocket(s.Root, rig.DriverName)}.Volumes(t.Context())
	require.NoError(t, err)
	if len(volumes) != len(s.pods) {
		t.Errorf("%d volumes are open, want %d", len(volumes), len(s.pods))
	}
	logins := 0
	for _, v := range volumes {
		logins += v.Session.Logins
		if v.Session.Logins != 1 {
			t.Errorf("%s has logged in %d times", v.ID, v.Session.Logins)
		}
	}
	last := s.taken(t)
	s.leave(t, s.pods)
	rig.Eventually(t, "all tokens are revoked", func() bool { return s.Vault.PodTokens(t) == 0 })
	s.requireClean(t)
	s.Process.Stop(t)
	// A new process has not yet filled its pools; what grows with each round shows.
	if last.files > s.first.files+100 || last.resident > s.first.resident+48<<20 {
		t.Errorf("after the start the driver had %+v, in the end %+v", s.first, last)
	}
	slices.SortFunc(s.seen, cmp.Compare)
	const mebibyte = 1 << 20
	t.Logf(`soaked:
	%d rounds, with the faults %v
	%d volumes, %d sessions, %d logins of those that were open at the end, %d tokens left
	a rotation was in all volumes %s after its fault in the median, %s at the latest
	the driver had %d MiB, %d files and %d threads after the start, %d MiB, %d and %d in the end`,
		s.rounds, s.faults, len(volumes), s.sessions, logins, s.Vault.PodTokens(t),
		s.seen[len(s.seen)/2].Round(time.Millisecond), s.seen[len(s.seen)-1].Round(time.Millisecond),
		s.first.resident/mebibyte, s.first.files, s.first.threads, last.resident/mebibyte, last.files, last.threads)
	tally.Record(t, "rotations through faults drawn at random", s.rounds, 0)
}
