package driver

import (
	"fmt"
	"maps"
	"testing"
)

func TestAllowList(t *testing.T) {
	t.Parallel()
	list, err := ParseAllowList([]string{"https://vault.example.com:8200", "https://*.apps.example.com", "http://127.0.0.1:8200"})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{
		"https://vault.example.com:8200":      true,
		"https://VAULT.example.com:8200":      true,
		"http://vault.example.com:8200":       false,
		"https://vault.example.com":           false,
		"https://vault.example.com.evil:8200": false,
		"https://x.vault.example.com:8200":    false,
		"https://a.apps.example.com":          true,
		"https://a.b.apps.example.com:443":    true,
		"https://apps.example.com":            false,
		"https://evilapps.example.com":        false,
		"https://a.apps.example.com:8200":     false,
		"http://127.0.0.1:8200":               true,
	}
	for address, want := range tests {
		if got := list.Allows(address); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	for _, bad := range []string{"", "vault:8200", "ftp://vault", "https://vault/v1", "https://*", "https://*.com", "https://a*.example.com", "https://user@vault"} {
		if _, err := ParseAllowList([]string{bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// The addresses that tenants name below a wildcard are no labels of a metric.
func TestAddressLabels(t *testing.T) {
	t.Parallel()
	vault := VaultConfig{Address: "https://vault:8200"}
	breakerOpen := map[string]bool{vault.Address: false}
	for i := range 1000 {
		breakerOpen[fmt.Sprintf("https://%d.tenants.example.com", i)] = i == 500
	}
	if got := vault.Labels(breakerOpen); !maps.Equal(got, map[string]bool{vault.Address: false, "other": true}) {
		t.Errorf("got %v", got)
	}
	if got := vault.Labels(nil); len(got) != 0 {
		t.Errorf("without a Vault in use: %v", got)
	}
}
