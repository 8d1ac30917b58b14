package attacks

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/vaultmount/vaultmount/provider/limits"
	"github.com/vaultmount/vaultmount/test/parts"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/vaultserver"
)

// The two who share a node, by namespace and by role in Vault.
const (
	tenant = "tenant"
	victim = "victim"
)

// startVault starts a Vault in which each of the two may read what is its own.
func startVault(t *testing.T) *rig.Vault {
	t.Helper()
	vault := rig.SetUpVault(t, vaultserver.DurableForTest(t).Server)
	for name, policy := range map[string]string{
		victim: `path "internal/data/victim/*" { capabilities = ["read"] }`,
		tenant: `path "internal/data/tenant/*" { capabilities = ["read", "update"] }
			path "database/creds/*" { capabilities = ["read"] }`,
	} {
		vault.Write(t, "sys/policies/acl/"+name, map[string]any{"policy": policy})
		vault.Write(t, "auth/jwt/role/"+name, map[string]any{
			"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
			"bound_subject": "system:serviceaccount:" + name + ":app", "token_policies": []string{name}, "token_ttl": "1h",
		})
	}
	vault.Write(t, "internal/data/victim/db", map[string]any{"data": map[string]any{"password": rig.Password}})
	vault.Write(t, "internal/data/tenant/db", map[string]any{"data": map[string]any{"password": "the tenant's own"}})
	return vault
}

// memoryLimit is what the chart gives the first container of a manifest of its own.
func memoryLimit(t *testing.T, manifest string) int64 {
	t.Helper()
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(read(t, inCheckout(t, "deploy/"+manifest))), 4096)
	for {
		// A Deployment has the same fields.
		var workload appsv1.DaemonSet
		if err := documents.Decode(&workload); err != nil {
			t.Fatalf("find a workload in %s: %v", manifest, err)
		}
		if containers := workload.Spec.Template.Spec.Containers; len(containers) > 0 {
			return containers[0].Resources.Limits.Memory().Value()
		}
	}
}

// inCheckout is the path of what the checkout holds. The test may have been built
// before, and run in another directory of it.
func inCheckout(t *testing.T, path string) string {
	t.Helper()
	root, err := parts.Checkout()
	require.NoError(t, err)
	return filepath.Join(root, path)
}

// stage is a node on which the attack takes place.
type stage struct {
	*rig.Node
	rogue  *rogue // the tenant's Vault, which is on the allow-list
	memory *rig.Memory
	pods   int        // numbers the names
	turn   sync.Mutex // of those who start pods on a node that they share, and of answers
	// answers are what the tenant's publishes came to, and how often.
	answers map[string]int
	// tenants are all requests of the tenant.
	tenants []*csi.NodePublishVolumeRequest
}

func (a *arena) newStage(t *testing.T, arguments ...string) *stage {
	t.Helper()
	s := &stage{Node: rig.NewNode(t, a.vault, a.vault.Server.Address), rogue: startRogue(t), memory: rig.NewMemory(t, a.limit), answers: map[string]int{}}
	s.CallTimeout = scaled(15*time.Second, 2*time.Minute) // what a kubelet waits
	s.Process = s.memory.StartDriver(t, s.Kubelet, s.Address, append([]string{
		"--verbosity=2", "--allow-address=" + s.rogue.address, "--allow-address=https://*.tenants.example.com:8200",
	}, arguments...)...)
	s.AwaitDriver(t)
	return s
}

// request is for a volume of a new pod.
func (s *stage) request(t *testing.T, namespace string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	s.pods++
	pod := rig.Pod{Namespace: namespace, Name: fmt.Sprintf("%s-%d", namespace, s.pods), ServiceAccount: "app", Volume: "secrets"}
	all := map[string]string{"role": namespace}
	for key, value := range attributes {
		all[key] = value
	}
	request := s.RequestFor(t, s.Vault, pod, all)
	request.Readonly = true
	return request
}

// tenantRequest is for a volume of a new pod of the tenant.
func (s *stage) tenantRequest(t *testing.T, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	request := s.request(t, tenant, attributes)
	s.tenants = append(s.tenants, request)
	return request
}

// tenantRequests are for one volume of each of some pods.
func (s *stage) tenantRequests(t *testing.T, pods int, attributes func(pod int) map[string]string) []*csi.NodePublishVolumeRequest {
	t.Helper()
	var all []*csi.NodePublishVolumeRequest
	for pod := range pods {
		all = append(all, s.tenantRequest(t, attributes(pod)))
	}
	return all
}

// publishAll publishes at once. Whether that succeeds is the tenant's own affair; the
// log of the test tells.
func (s *stage) publishAll(ctx context.Context, requests []*csi.NodePublishVolumeRequest) {
	var group sync.WaitGroup
	for _, request := range requests {
		group.Go(func() {
			message := "published"
			if err := s.Publish(ctx, request); err != nil {
				message = limits.Truncate(err.Error(), 300)
			}
			s.turn.Lock()
			defer s.turn.Unlock()
			s.answers[message]++
		})
	}
	group.Wait()
}

// unpublishTenant takes down all volumes of the tenant. A call for one of them may
// still be in progress, so that it is asked again, as the kubelet does.
func (s *stage) unpublishTenant(t *testing.T) {
	t.Helper()
	for _, request := range s.tenants {
		rig.Eventually(t, "a volume of the tenant is unpublished", func() bool { return s.Unpublish(t.Context(), request) == nil })
	}
}

func (s *stage) isAlive() bool { return isAlive(s.Process) }

// isAlive is false for a process that has ended, also before somebody has collected it.
func isAlive(p *rig.Process) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	return err == nil && !strings.Contains(string(state), ") Z ")
}

func cpuTime(t *testing.T, p *rig.Process) time.Duration {
	t.Helper()
	used, err := rig.CPUTime(p.Process.Pid)
	require.NoError(t, err)
	return used
}

// mostCPU publishes one after the other, and returns what the costliest takes.
func (s *stage) mostCPU(t *testing.T, requests []*csi.NodePublishVolumeRequest) time.Duration {
	t.Helper()
	var most time.Duration
	for _, request := range requests {
		before := cpuTime(t, s.Process)
		_ = s.Publish(t.Context(), request)
		most = max(most, cpuTime(t, s.Process)-before)
	}
	return most
}

// memoryMargin is what may stay of a driver's memory: workers that are idle, and
// what Go keeps for the next use.
const memoryMargin = 96 << 20

// awaitMemory waits until the memory has returned. Each look at the metrics makes
// garbage, so that the driver collects it.
func (s *stage) awaitMemory(t *testing.T, before int64) int64 {
	t.Helper()
	used := s.memory.Used(t)
	for end := time.Now().Add(3 * time.Minute); used > before+memoryMargin && time.Now().Before(end); used = s.memory.Used(t) {
		s.Process.Metrics(t)
	}
	if used > before+memoryMargin {
		t.Errorf("after the attack the driver takes %d MiB, before it took %d", used>>20, before>>20)
	}
	return used
}

// restart kills the driver, and starts it again as the DaemonSet does.
func (s *stage) restart(t *testing.T) {
	t.Helper()
	s.Process.Kill(t)
	s.Again(t)
}

// rogue is a Vault of the tenant's own, which answers as it likes.
type rogue struct {
	address string

	mutex sync.Mutex
	// handler answers in place of the usual answers where it returns true.
	handler func(http.ResponseWriter, *http.Request) bool
}

func startRogue(t *testing.T) *rogue {
	t.Helper()
	r := &rogue{}
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		server.CloseClientConnections() // those that hang
		server.Close()
	})
	r.address = server.URL
	return r
}

func (r *rogue) handle(handler func(http.ResponseWriter, *http.Request) bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.handler = handler
}

// handleBelow has the handler answer all requests whose paths have a prefix.
func (r *rogue) handleBelow(prefix string, handler http.HandlerFunc) {
	r.handle(func(w http.ResponseWriter, request *http.Request) bool {
		below := strings.HasPrefix(request.URL.Path, prefix)
		if below {
			handler(w, request)
		}
		return below
	})
}

// answerBelow answers them with a KV secret whose only value is some JSON.
func (r *rogue) answerBelow(prefix, value string) {
	r.handleBelow(prefix, func(w http.ResponseWriter, _ *http.Request) { answerSecret(w, value) })
}

// ServeHTTP implements http.Handler.
func (r *rogue) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mutex.Lock()
	handler := r.handler
	r.mutex.Unlock()
	if handler != nil && handler(w, request) {
		return
	}
	switch path := request.URL.Path; {
	case strings.HasSuffix(path, "/login"):
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "auth": map[string]any{
			"client_token": "hvs." + rand.Text(), "accessor": rand.Text(), "lease_duration": 3600, "renewable": true, "policies": []string{"default"},
		}})
	case strings.HasPrefix(path, "/v1/sys/internal/ui/mounts/"):
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "data": map[string]any{"path": "kv/", "type": "kv", "options": map[string]any{"version": "2"}}})
	case strings.HasPrefix(path, "/v1/auth/token/revoke-self"):
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(path, "/v1/auth/token/renew-self"):
		answer(w, http.StatusOK, map[string]any{"request_id": "r", "auth": map[string]any{
			"client_token": request.Header.Get("X-Vault-Token"), "accessor": "a", "lease_duration": 3600, "renewable": true,
		}})
	default:
		answerSecret(w, `"value"`)
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the driver may have gone
}

// answerSecret answers with a KV secret whose only value is some JSON.
func answerSecret(w http.ResponseWriter, value string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"request_id":"r","data":{"data":{"value":%s},"metadata":{"version":1}}}`, value) // as above
}
