package component

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/test/rig"
)

var update = flag.Bool("update", false, "write what the tests see into testdata")

// What a user reads in "kubectl describe pod" when one thing about the way to
// Vault is wrong, each from a real Vault. The file is for reading: every message
// says what is wrong, where, and what to do.
func TestRefusalsAreClear(t *testing.T) {
	right, wrong := newCA(t, "the right one"), newCA(t, "the wrong one")
	fixture := startTLSVault(t, right, true)
	fixture.Write(t, "sys/auth/kubernetes", map[string]any{"type": "kubernetes"})
	fixture.Write(t, "auth/kubernetes/config", map[string]any{"kubernetes_host": "https://127.0.0.1:1", "disable_local_ca_jwt": true, "token_reviewer_jwt": "x"})
	fixture.Write(t, "auth/kubernetes/role/internal-app", map[string]any{"bound_service_account_names": "internal-app", "bound_service_account_namespaces": "default", "audience": "vault"})
	n := startNode(t, fixture.Server.TLSAddress, fixture, vaultCA(right.pem), func(c *driver.Config) { c.Vault.ForbidSkipVerify = true })

	certificate, key := right.issue(t, "client", time.Now().Add(time.Hour))
	_, otherKey := right.issue(t, "other", time.Now().Add(time.Hour))
	expired, expiredKey := right.issue(t, "late", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	foreign, foreignKey := wrong.issue(t, "foreign", time.Now().Add(time.Hour))
	secret := map[string]string{
		"ca.crt": right.pem, "wrong-ca.crt": wrong.pem, "text": "hello", "tls.crt": certificate, "tls.key": key, "other.key": otherKey,
		"expired.crt": expired, "expired.key": expiredKey, "foreign.crt": foreign, "foreign.key": foreignKey,
	}
	good := map[string]string{"tls-server-name": "vault.internal", "client-cert": "tls.crt", "client-key": "tls.key"}
	n.requirePublished(t, "good", good, secret)

	tests := []struct {
		name  string
		with  map[string]string
		empty bool // no Secret at all
	}{
		{"wrong CA", map[string]string{"ca-cert": "wrong-ca.crt"}, false},
		{"CA that is no certificate", map[string]string{"ca-cert": "text"}, false},
		{"CA of the cluster that the driver has not", map[string]string{"ca-cert": volume.ServiceCA}, false},
		{"wrong server name", map[string]string{"tls-server-name": "vault.elsewhere"}, false},
		{"no client certificate", map[string]string{"client-cert": rig.Absent, "client-key": rig.Absent}, false},
		{"client certificate of another CA", map[string]string{"client-cert": "foreign.crt", "client-key": "foreign.key"}, false},
		{"expired client certificate", map[string]string{"client-cert": "expired.crt", "client-key": "expired.key"}, false},
		{"key of another certificate", map[string]string{"client-key": "other.key"}, false},
		{"missing key in the Secret", map[string]string{"client-cert": "typo.crt"}, false},
		{"no Secret", map[string]string{}, true},
		{"no verification where it is forbidden", map[string]string{"tls-skip-verify": "true"}, false},
		{"address that is not allowed", map[string]string{"address": "https://vault.evil.example:8200"}, false},
		{"proxy that is not allowed", map[string]string{"proxy-address": "http://proxy.evil.example:3128"}, false},
		{"audience that is not offered", map[string]string{"audience": "mars"}, false},
		{"audience of another", map[string]string{"audience": ""}, false},
		{"unknown auth mount", map[string]string{"auth-path": "auth/nowhere"}, false},
		{"unknown role", map[string]string{"role": "nobody"}, false},
		{"API server that does not answer Vault", map[string]string{"auth-type": "kubernetes"}, false},
		{"role that lacks a policy", map[string]string{"template/a": `{{ secret "internal/other" }}`}, false},
		{"secret that does not exist", map[string]string{"template/a": `{{ secret "internal/database/typo" }}`}, false},
	}
	var report strings.Builder
	for _, test := range tests {
		attributes := map[string]string{}
		for _, layer := range []map[string]string{good, test.with} {
			for key, value := range layer {
				attributes[key] = value
			}
		}
		given := secret
		if test.empty {
			given = nil
		}
		_, err := n.publish(t, strings.ReplaceAll(test.name, " ", "-"), attributes, given)
		if err == nil {
			t.Errorf("%s: published", test.name)
			continue
		}
		message := normalize(status.Convert(err).Message())
		fmt.Fprintf(&report, "%s\n  %s: %s\n\n", test.name, status.Code(err), message)
	}
	compareGolden(t, "testdata/refusals.txt", report.String())
}

// normalize takes out what differs from run to run: the port; and how the end of
// a connection looks whose client certificate Vault refuses, which with TLS 1.3
// is a matter of which side is faster. What the user should do is always the
// same.
func normalize(message string) string {
	message = regexp.MustCompile(`127\.0\.0\.1:\d\d+`).ReplaceAllString(message, "vault.internal:8200")
	return regexp.MustCompile(`for now: .*(set client-cert and client-key)`).ReplaceAllString(message, `for now: (the connection ends); $1`)
}

func compareGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	if want := mustRead(t, path); got != want {
		t.Errorf("%s differs (go test -update writes it):\n%s", path, got)
	}
}
