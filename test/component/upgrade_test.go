package component

import (
	"strings"
	"testing"
	"time"

	"github.com/vaultmount/vaultmount/test/rig"
)

// shownKV shows what a path holds, and renders without a failure if that is nothing.
const shownKV = `{{ with secret "old/app" }}{{ range $key, $value := .Data }}{{ $key }} {{ end }}{{ end }}`

// A mount of KV version 1 is upgraded in place: Vault has nothing at its old paths
// then, and says so with a warning alone. The files keep what they hold or show the
// secret at its new path, and never nothing.
func TestUpgradeOfAMountLeavesTheFiles(t *testing.T) {
	const before, after = "html name ", "data metadata "
	for name, test := range map[string]struct{ policy, want, failure string }{
		"the policy is for the old path": {`path "old/app" { capabilities = ["read"] }`, before, "read old/data/app in Vault"},
		"the policy is for the mount":    {`path "old/*" { capabilities = ["read"] }`, after, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fixture := rig.StartVault(t)
			fixture.Write(t, "sys/policies/acl/internal-app", map[string]any{"policy": test.policy})
			n, clock := startTimedNode(t, fixture)
			request := n.request(t, "upgraded", map[string]string{"template/a": shownKV, "secret/b": "old/app"})
			n.mustPublish(t, request)
			if got := mustRead(t, rig.VolumeFile(request, "a")); got != before {
				t.Fatalf("of version 1, the file shows %q", got)
			}
			written := mustRead(t, rig.VolumeFile(request, "b"))

			fixture.Write(t, "sys/mounts/old/tune", map[string]any{"options": map[string]any{"version": "2"}})
			rig.Eventually(t, "the mount is upgraded", func() bool {
				secret, err := fixture.Root.Logical().ReadWithContext(t.Context(), "old/data/app")
				return err == nil && secret != nil && secret.Data["data"] != nil
			})
			n.pass(t, clock, 10*time.Minute)
			if got := mustRead(t, rig.VolumeFile(request, "a")); got != test.want {
				t.Errorf("upgraded, the file shows %q, want %q", got, test.want)
			}
			if got := mustRead(t, rig.VolumeFile(request, "b")); got == "" || (got == written) != (test.want == before) {
				t.Errorf("upgraded, the file of the default template holds %q", got)
			}
			err := n.volumes.Statuses()[0].Err
			if (err == nil) != (test.failure == "") || err != nil && !strings.Contains(err.Error(), test.failure) {
				t.Errorf("the volume's error is %v", err)
			}
		})
	}
}
