package status

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func examples(now time.Time) []Volume {
	return []Volume{
		{
			ID: "csi-0123456789abcdef", Name: "vault-secrets", Namespace: "shop", Pod: "orders-7f9c", PodUID: "uid-1",
			Target: "/var/lib/kubelet/pods/uid-1/volumes/kubernetes.io~csi/vault-secrets/mount", Files: []string{"db", "tls/key.pem"},
			State: Stale, Error: "read database/creds/orders in Vault at https://vault:8200: unavailable for now: HTTP status 503: Vault is sealed",
			Session:   &Session{Address: "https://vault:8200", Mount: "auth/kubernetes", Role: "orders", Since: now.Add(-26 * time.Hour), Expires: now.Add(2 * time.Minute), Logins: 2, Error: "renew auth/token/renew-self: unavailable for now"},
			Refreshed: now.Add(-3 * time.Minute), Next: now.Add(12 * time.Second), Used: 12 << 10, Size: 1 << 20, Capacity: 1046 << 10,
			Secrets: []Secret{
				{Path: "database/creds/orders", Action: "read", Due: now.Add(12 * time.Second), Expires: now.Add(4 * time.Minute), Renewable: true, Error: "unavailable for now"},
				{Path: "kv/data/orders", Action: "read", Due: now.Add(-time.Second)},
			},
		},
		{ID: "csi-fedcba9876543210", Name: "certs", Namespace: "shop", Pod: "web-0", State: Static, Target: "/x", Files: []string{"a"}, Size: 1 << 20, Capacity: 1046 << 10},
		{
			ID: "csi-0011223344556677", Name: "vault-secrets", Namespace: "shop", Pod: "cart-0", PodUID: "uid-2", Target: "/y", Files: []string{"a"}, State: Fresh, Size: 1 << 20, Capacity: 1046 << 10,
			Session: &Session{Address: "https://vault:8200", Mount: "auth/kubernetes", Role: "cart"},
			Shared:  &Session{Address: "https://vault:8200", Mount: "auth/kubernetes", Role: "cart", Since: now.Add(-time.Hour), Expires: now.Add(time.Minute), Logins: 1, Pods: 20},
		},
		{
			ID: "csi-8899aabbccddeeff", Name: "vault-secrets", Namespace: "shop", Pod: "cart-1", PodUID: "uid-3", Target: "/z", Files: []string{"a"}, State: Stale, Size: 1 << 20, Capacity: 1046 << 10,
			Session: &Session{Address: "https://vault:8200", Mount: "auth/kubernetes", Role: "cart", Since: now.Add(-time.Minute), Expires: now.Add(time.Minute), Logins: 1},
			Shared:  &Session{Address: "https://vault:8200", Mount: "auth/kubernetes", Role: "cart", Since: now.Add(-time.Hour), Expires: now.Add(time.Minute), Logins: 1, Pods: 20, Error: "unavailable for now"},
		},
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	for _, details := range []bool{false, true} {
		if err := Print(&out, examples(now), now, details); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('\n')
	}
	golden := filepath.Join("testdata", "volumes.txt")
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || out.String() != string(want) {
		t.Errorf("got %v\n%s", err, out.String())
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	volumes := examples(time.Now())
	tests := map[string]int{"web-0": 1, "shop/orders-7f9c": 1, "shop/web-0/certs": 1, "csi-fedcba": 1, "shop": 0, "csi-": 0, "orders": 0, "other/web-0": 0}
	for name, want := range tests {
		found, err := Find(volumes, name)
		if len(found) != want || (err == nil) != (want > 0) {
			t.Errorf("%s: found %d, %v", name, len(found), err)
		}
	}
	if _, err := Find(nil, "x"); err == nil || err.Error() != `no volume "x": this node has no volumes` {
		t.Errorf("got %v", err)
	}
}
