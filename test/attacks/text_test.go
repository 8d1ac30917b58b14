package attacks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/test/rig"
)

// textAttacks are about long names and values.
func textAttacks() []attack {
	return []attack{
		{name: "the name of an annotation is 600 KB of dashes", requests: dashRequests, cpu: requestCPU},
		{name: "an option is for a file of 300 KB", requests: orphanRequests, cpu: requestCPU},
		{name: "a template has 250 KB of an unknown function", requests: functionRequests, cpu: requestCPU},
		{name: "the names of role, auth path and Vault path are 1.3 MB long", requests: longNameRequests, cpu: requestCPU, after: requireSmallLog},
		{name: "addresses below a wildcard are 1 MB long", requests: addressRequests, cpu: requestCPU, after: requireSmallLog},
	}
}

const annotationPrefix = "vault.hashicorp.com/"

// annotated are the attributes of a volume that the policy wrote, and more annotations.
func annotated(more map[string]string) map[string]string {
	attributes := map[string]string{
		"role": rig.Absent, "auth-type": rig.Absent, annotationPrefix + "role": tenant, annotationPrefix + "auth-type": "jwt", annotationPrefix + "auth-path": "auth/jwt",
		annotationPrefix + "agent-inject-secret-a": "internal/data/tenant/db",
	}
	for name, value := range more {
		attributes[annotationPrefix+name] = value
	}
	return attributes
}

func dashRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	var all []*csi.NodePublishVolumeRequest
	for _, length := range []int{30, 500, 300_000} {
		all = append(all, s.tenantRequest(t, annotated(map[string]string{strings.Repeat("-x", length): "1"})))
	}
	return all
}

func orphanRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	var all []*csi.NodePublishVolumeRequest
	for _, length := range []int{60, 1000, 300 << 10} {
		attributes := map[string]string{"perms/" + strings.Repeat("x", length): "0600"}
		directory := strings.Repeat("y", 240)
		for i := range 300 {
			attributes[fmt.Sprintf("template/%04d/%s/%s/%s", i, directory, directory, directory)] = "x"
		}
		all = append(all, s.tenantRequest(t, attributes))
	}
	return all
}

func functionRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	var all []*csi.NodePublishVolumeRequest
	for _, length := range []int{4000, 250_000} {
		all = append(all, s.tenantRequest(t, map[string]string{"template/a": "{{ " + strings.Repeat("a", length) + " }}"}))
	}
	return all
}

func longNameRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	long := strings.Repeat("x", 1_300_000)
	var all []*csi.NodePublishVolumeRequest
	for key, value := range map[string]string{
		"role": long, "auth-path": "auth/" + long, "namespace": long, "audience": long, "size": long,
		"template/b": `{{ with secret "internal/` + long + `" }}{{ end }}`, "secret/b": "internal/" + long,
	} {
		all = append(all, s.tenantRequest(t, map[string]string{"template/a": "x", key: value}))
	}
	return all
}

func addressRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	return s.tenantRequests(t, scaled(24, 250), func(pod int) map[string]string {
		return map[string]string{
			"address":    fmt.Sprintf("https://%d%s.tenants.example.com:8200", pod, strings.Repeat("a", 1_000_000)),
			"template/a": `{{ with secret "kv/data/a" }}{{ end }}`, "client-max-retries": "0",
		}
	})
}

// requireSmallLog holds the log to 16 KiB for each call, however long the names.
func requireSmallLog(t *testing.T, s *stage) {
	t.Helper()
	longest := 0
	for line := range strings.Lines(s.Process.Log.String()) {
		longest = max(longest, len(line))
	}
	if longest > 4<<10 {
		t.Errorf("a line of the log has %d bytes", longest)
	}
}
