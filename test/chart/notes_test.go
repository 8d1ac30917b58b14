package chart

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What Helm prints after an install warns of what is dangerous, and is silent of what
// is not there.
func TestNotes(t *testing.T) {
	for _, test := range []struct {
		name        string
		set         string
		want, never []string
	}{
		{
			name: "webhook", set: "webhook.enabled=true",
			want: []string{
				"from https://vault.vault.svc:8200.", "get their volumes from the webhook.", `Before "helm uninstall", delete the pods`, "on each node an empty directory\n/var/lib/kubelet/plugins/csi.vaultmount.dev",
				"kubectl label namespace secrets pod-security.kubernetes.io/enforce=privileged", "Afterwards these remain: the namespace secrets",
			},
			never: []string{"WARNING", "policy in the API server", "cert-manager"},
		},
		{name: "http", set: "vault.address=http://vault:8200", want: []string{"WARNING: tokens and secrets travel to Vault unencrypted"}},
		{name: "no translation", set: "policy.enabled=false", want: []string{"are not translated", "set webhook.enabled=true"}},
		{name: "host's network", set: "webhook.enabled=true,webhook.hostNetwork=true", want: []string{"WARNING: webhook.hostNetwork"}},
		{name: "webhook that fails open", set: "webhook.enabled=true,webhook.failurePolicy=Ignore", want: []string{"WARNING: webhook.failurePolicy is Ignore", "by the guard alone"}},
		{name: "webhook that fails open without guard", set: "webhook.enabled=true,webhook.failurePolicy=Ignore,guard.enabled=false", want: []string{"start without their secrets"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			printed, err := helm(t, "install", "vaultmount", directory, "--namespace=secrets", "--dry-run=client", address, "--set="+test.set)
			require.NoError(t, err)
			_, notes, _ := strings.Cut(printed, "\nNOTES:\n")
			for _, want := range test.want {
				if !strings.Contains(notes, want) {
					t.Errorf("%q is not in:\n%s", want, notes)
				}
			}
			for _, never := range test.never {
				if strings.Contains(notes, never) {
					t.Errorf("%q is in:\n%s", never, notes)
				}
			}
		})
	}
}
