package faults

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

// vaultFault is how Vault, or the network before it, fails.
type vaultFault struct {
	// begin breaks it, end repairs it.
	begin, end func(t *testing.T, v *vaultserver.Durable, g *gateway)
	// believed says that its answer to a revocation could be Vault's own: the token
	// is left to its TTL.
	believed bool
	// direct leaves the gateway out.
	direct bool
	// stranded is how many logins Vault may finish for callers that have given up.
	stranded int
}

func gatewaySays(answer http.HandlerFunc) vaultFault {
	return vaultFault{
		func(_ *testing.T, _ *vaultserver.Durable, g *gateway) { g.say(answer) },
		func(_ *testing.T, _ *vaultserver.Durable, g *gateway) { g.say(nil) },
		false, false, 0,
	}
}

func believed(answer http.HandlerFunc) vaultFault {
	fault := gatewaySays(answer)
	fault.believed = true
	return fault
}

func vaultFaults() map[string]vaultFault {
	return map[string]vaultFault{
		"is down": {
			func(_ *testing.T, v *vaultserver.Durable, _ *gateway) { v.Kill() },
			func(t *testing.T, v *vaultserver.Durable, _ *gateway) { require.NoError(t, v.Restart(t.Context())) },
			false, true, 0,
		},
		"is sealed": {
			func(t *testing.T, v *vaultserver.Durable, _ *gateway) { require.NoError(t, v.Seal(t.Context())) },
			func(t *testing.T, v *vaultserver.Durable, _ *gateway) { require.NoError(t, v.Unseal(t.Context())) },
			false, true, 0,
		},
		"takes connections and never answers": {
			func(t *testing.T, v *vaultserver.Durable, _ *gateway) { require.NoError(t, v.Pause()) },
			func(t *testing.T, v *vaultserver.Durable, _ *gateway) { require.NoError(t, v.Continue()) },
			false, true, 2, // of the two pods that start meanwhile
		},
		"takes 30 s for an answer":           gatewaySays(slow),
		"takes requests and never answers":   gatewaySays(hanging),
		"answers 429, and to wait a minute":  gatewaySays(saying(429, `{"errors":["request path \"x\": rate limit quota exceeded"]}`, "Retry-After", "60")),
		"answers 500":                        gatewaySays(saying(500, `{"errors":["internal error"]}`)),
		"answers 502 with a page":            gatewaySays(saying(502, "<html><body>Bad gateway</body></html>")),
		"answers a page":                     gatewaySays(saying(200, "<html><body>Please log in</body></html>")),
		"answers bytes at random":            gatewaySays(saying(200, "\x00\xff\xfe{{{\x1f\x8b")),
		"breaks off in the midst of JSON":    gatewaySays(saying(200, `{"auth":{"client_token":"hvs.`)),
		"breaks the connection in an answer": gatewaySays(breaking),
		"answers 100 MB":                     gatewaySays(flooding(200)),
		"answers an error of 100 MB":         gatewaySays(flooding(400)),
		"answers 403 to everything":          believed(saying(403, `{"errors":["permission denied"]}`)),
		"redirects in a circle": gatewaySays(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}),
		"is a page of another program (404)":        gatewaySays(saying(404, "404 page not found")),
		"answers nothing at all (200 and no bytes)": gatewaySays(saying(200, "")),
		"answers JSON of another program":           gatewaySays(saying(200, `{"status":"ok"}`)),
	}
}

// Whatever is wrong with Vault: a pod that starts reads why, within its kubelet's
// waitTimeout, and nothing is left of the attempt; a pod that runs keeps its files,
// also over a restart of the driver, and gets new ones when Vault is back; a pod
// that goes is gone at once. The driver's memory stays small.
func TestVaultFaults(t *testing.T) {
	var mutex sync.Mutex
	messages, lost := map[string]string{}, map[string]int{}
	t.Run("Vault", func(t *testing.T) {
		for name, fault := range vaultFaults() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := &sufferer{fault: fault, held: map[string]bool{}}
				defer func() {
					mutex.Lock()
					defer mutex.Unlock()
					messages[name] = s.message
					for _, phase := range phases {
						if !s.held[phase] {
							lost[phase]++
						}
					}
				}()
				s.suffer(t)
			})
		}
	})
	for _, phase := range phases {
		tally.Record(t, phase+" while Vault fails", len(vaultFaults()), lost[phase])
	}
	var report strings.Builder
	for _, name := range slices.Sorted(maps.Keys(messages)) {
		fmt.Fprintf(&report, "Vault %s\n  %s\n\n", name, messages[name])
	}
	compareGolden(t, "testdata/vault-faults.txt", report.String())
}

// What is asked of the driver, each of which may hold while another does not.
const (
	firstPublish = "first publish"
	refresh      = "refresh"
	unpublish    = "unpublish"
)

var phases = []string{firstPublish, refresh, unpublish}

// sufferer is a node whose Vault fails.
type sufferer struct {
	*node
	fault   vaultFault
	held    map[string]bool // by phase
	message string          // what the pod that starts reads
	tokens  []string        // accessors of those of the pods that run at first
}

// try goes on with the other phases if one does not hold.
func (s *sufferer) try(t *testing.T, phase string, do func(*testing.T)) {
	t.Helper()
	before, tried := s.held[phase]
	s.held[phase] = t.Run(phase, do) && (before || !tried)
}

func (s *sufferer) suffer(t *testing.T) {
	t.Helper()
	server := vaultserver.DurableForTest(t)
	vault := rig.SetUpVault(t, server.Server)
	way := openGateway(t, server.Address)
	address := way.URL
	if s.fault.direct {
		address = server.Address
	}
	s.node = startNode(t, vault, address)
	running, leaving := s.request(t, "running", generations()), s.request(t, "leaving", generations())
	vault.SetPassword(t, password(1))
	s.MustPublish(t, running)
	s.MustPublish(t, leaving)
	s.tokens = vault.Accessors(t)

	// The first driver must not see what the second is to find when Vault is back.
	s.Process.Kill(t)
	vault.SetPassword(t, password(2))
	s.fault.begin(t, server, way)
	s.Again(t)
	s.endure(t, running, leaving)
	s.fault.end(t, server, way)
	s.recover(t, running)
	s.requireClean(t)
	s.Process.Stop(t)
}

// endure is what happens while Vault fails.
func (s *sufferer) endure(t *testing.T, running, leaving *csi.NodePublishVolumeRequest) {
	t.Helper()
	s.try(t, refresh, func(t *testing.T) {
		if err := s.Publish(t.Context(), running); err != nil {
			t.Errorf("republish: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = s.refresh(ctx, running) // begins one, which fails
	})
	s.try(t, firstPublish, func(t *testing.T) { s.message = s.firstPublish(t) })
	s.try(t, refresh, func(t *testing.T) {
		rig.Eventually(t, "the refresh fails", func() bool {
			return strings.Contains(s.Process.Log.String(), `"Volume not refreshed; its files stay as they are"`)
		})
	})
	s.try(t, unpublish, func(t *testing.T) { s.MustUnpublish(t, leaving) })
	s.try(t, refresh, func(t *testing.T) {
		if seen, err := readGeneration(running.GetTargetPath()); err != nil || seen != 1 {
			t.Errorf("the files hold generation %d, %v", seen, err)
		}
	})
	if peak := memory(t, s.Process.Process.Pid, "VmHWM"); peak > 160<<20 {
		t.Errorf("the driver took %d MiB", peak>>20)
	}
}

// recover is what happens when Vault is back.
func (s *sufferer) recover(t *testing.T, running *csi.NodePublishVolumeRequest) {
	t.Helper()
	s.try(t, refresh, func(t *testing.T) {
		rig.Eventually(t, "the files are refreshed", func() bool {
			seen, err := readGeneration(running.GetTargetPath())
			return err == nil && seen == 2
		})
	})
	left := 0
	if s.fault.believed {
		left = 1
	}
	s.try(t, unpublish, func(t *testing.T) {
		rig.Eventually(t, "the token of the pod that left is revoked", func() bool { return s.good(t) <= 1+left })
		s.MustUnpublish(t, running)
		rig.Eventually(t, "the other token is revoked", func() bool { return s.good(t) <= left })
		rig.Eventually(t, "no token is left that the driver could know of", func() bool { return s.Vault.PodTokens(t) <= left+s.fault.stranded })
	})
}

// good counts the tokens of the pods that ran at first.
func (s *sufferer) good(t *testing.T) int {
	t.Helper()
	good := 0
	for _, accessor := range s.tokens {
		if s.Vault.IsGood(t, accessor) {
			good++
		}
	}
	return good
}

// firstPublish tries two pods: one whose call the kubelet gives up soon, and one
// whose answer it waits for.
func (n *node) firstPublish(t *testing.T) (message string) {
	t.Helper()
	attributes := generations()
	attributes["client-timeout"], attributes["client-max-retries"] = "5s", "0"
	starting, impatient := n.request(t, "starting", attributes), n.request(t, "impatient", attributes)
	_, err := n.Calls.NodePublishVolume(t.Context(), starting)
	rig.RequireNothing(t, starting.GetTargetPath())
	if err == nil {
		t.Error("the volume was published")
	}
	short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := n.Calls.NodePublishVolume(short, impatient); err == nil {
		t.Error("the volume was published")
	}
	n.requireFree(t, impatient)
	n.requireFree(t, starting)
	return status.Code(err).String() + ": " + normalize(status.Convert(err).Message())
}

// requireFree waits until a call that was given up has ended in the driver.
func (n *node) requireFree(t *testing.T, request *csi.NodePublishVolumeRequest) {
	t.Helper()
	rig.Eventually(t, "the volume is free again", func() bool {
		err := n.Unpublish(t.Context(), request)
		if err != nil && status.Code(err) != codes.Aborted {
			t.Fatal(err)
		}
		return err == nil
	})
	rig.RequireNothing(t, request.GetTargetPath())
}

// normalize takes the ports out.
func normalize(message string) string {
	message = regexp.MustCompile(`127\.[0-9.]+:\d+->127\.[0-9.]+:\d+`).ReplaceAllString(message, "(connection)")
	return regexp.MustCompile(`127\.[0-9.]+:\d+`).ReplaceAllString(message, "vault.internal:8200")
}

// memory reads a line of a process's status, in bytes: VmHWM is the most that was
// ever resident.
func memory(t *testing.T, pid int, line string) int64 {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	found := regexp.MustCompile(line + `:\s+(\d+) kB`).FindSubmatch(content)
	if found == nil {
		t.Fatal("the kernel does not tell it")
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	require.NoError(t, err)
	return kilobytes << 10
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n%s", path, got)
	}
}
