package component

import (
	"net/http"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/test/rig"
)

// What a template means must not depend on who renders it: these are the read
// rules of consul-template, against a real Vault.
func TestReadSemantics(t *testing.T) {
	fixture := rig.StartVault(t)
	fixture.Write(t, "internal/data/versioned", map[string]any{"data": map[string]any{"v": "one"}})
	fixture.Write(t, "internal/data/versioned", map[string]any{"data": map[string]any{"v": "two"}})
	fixture.Write(t, "internal/data/versioned", map[string]any{"data": map[string]any{"v": "three"}})
	fixture.Write(t, "internal/delete/versioned", map[string]any{"versions": []int{2}})
	fixture.Write(t, "internal/data/gone", map[string]any{"data": map[string]any{"v": "x"}})
	fixture.Write(t, "internal/destroy/gone", map[string]any{"versions": []int{1}})
	fixture.Write(t, "sys/mounts/transit", map[string]any{"type": "transit"})
	fixture.Write(t, "transit/keys/app", nil)
	fixture.Write(t, "sys/mounts/pki", map[string]any{"type": "pki"})
	fixture.Write(t, "pki/root/generate/internal", map[string]any{"common_name": "root"})
	fixture.Write(t, "pki/roles/app", map[string]any{"allow_any_name": true})
	fixture.Write(t, "sys/policies/acl/internal-app", map[string]any{"policy": `
		path "internal/*" { capabilities = ["read", "list"] }
		path "old/*" { capabilities = ["read", "list"] }
		path "transit/*" { capabilities = ["update"] }
		path "pki/issue/app" { capabilities = ["update"] }`})
	n := startNode(t, fixture.Server.Address, fixture)
	tests := []struct{ name, template, want, wantError string }{
		{"latest version", `{{ with secret "internal/versioned" }}{{ .Data.data.v }}{{ end }}`, "three", ""},
		{"a version", `{{ with secret "internal/versioned?version=1" }}{{ .Data.data.v }}{{ end }}`, "one", ""},
		{"a version by its full path", `{{ with secret "internal/data/versioned?version=1" }}{{ .Data.data.v }}{{ end }}`, "one", ""},
		{"a deleted version", `{{ with secret "internal/versioned?version=2" }}{{ .Data.data.v }}{{ end }}`, "", "no such secret: nothing is stored at internal/versioned, or it is deleted"},
		{"a missing version", `{{ with secret "internal/versioned?version=9" }}{{ .Data.data.v }}{{ end }}`, "", "no such secret"},
		{"a destroyed secret", `{{ with secret "internal/gone" }}{{ .Data.data.v }}{{ end }}`, "", "no such secret"},
		{"metadata", `{{ with secret "internal/metadata/versioned" }}{{ .Data.current_version }}{{ end }}`, "3", ""},
		{"names", `{{ range secrets "internal/" }}{{ . }} {{ end }}`, "database/ gone versioned ", ""},
		{"names of version 1", `{{ range secrets "old" }}{{ . }} {{ end }}`, "app ", ""},
		{"names of nothing", `[{{ range secrets "internal/nowhere" }}{{ . }}{{ end }}]`, "[]", ""},
		{"write", `{{ with secret "transit/encrypt/app" "plaintext=aGVsbG8=" }}{{ .Data.ciphertext | regexReplaceAll ":[^:]*$" "" }}{{ end }}`, "vault:v1", ""},
		{"a certificate", `{{ with secret "pki/issue/app" "common_name=web" "ttl=1h" }}{{ .Data.certificate | regexMatch "BEGIN CERTIFICATE" }}{{ end }}`, "true", ""},
		{"one write for the same words", `{{ with secret "pki/issue/app" "common_name=web" "ttl=1h" }}{{ $a := .Data.serial_number }}{{ with secret "pki/issue/app" "common_name=web" "ttl=1h" }}{{ eq $a .Data.serial_number }}{{ end }}{{ end }}`, "true", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := n.publish(t, strings.ReplaceAll(test.name, " ", "-"), map[string]string{"template/a": test.template}, nil)
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) {
					t.Errorf("got %q, %v; want %s", got, err, test.wantError)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestMountIsProbedOncePerNode(t *testing.T) {
	fixture := rig.StartVault(t)
	s := startSpy(t, fixture.Server.Address, func(http.Header) {})
	n := startNode(t, s.URL, fixture)
	for i := range 5 {
		n.requirePublished(t, podName(i), nil, nil)
	}
	if got := len(s.seen("/sys/internal/ui/mounts")); got != 1 {
		t.Errorf("%d probes for one mount, want 1", got)
	}
	if got := len(s.seen("/internal/data/database/config")); got != 1+5 { // the probe's path ends so, too
		t.Errorf("%d requests for the secret, want 5 and the probe", got)
	}
}
