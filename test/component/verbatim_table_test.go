package component

import (
	"fmt"
	"maps"
	"slices"

	"github.com/vaultmount/vaultmount/test/rig"
)

type refusedAnnotation struct {
	blamed    string
	with      map[string]string
	namespace string
}

func (r refusedAnnotation) describe() []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(r.with)) {
		if r.with[name] == rig.Absent {
			all = append(all, "no "+name)
			continue
		}
		all = append(all, fmt.Sprintf("%s: %q", name, r.with[name]))
	}
	if r.namespace != "" {
		all = append(all, "in the namespace "+r.namespace)
	}
	return all
}

// refusedAnnotations goes through every value that turns an annotation into a
// refusal.
func refusedAnnotations() []refusedAnnotation {
	var all []refusedAnnotation
	one := func(name, value string, others ...string) {
		with := map[string]string{name: value}
		for i := 0; i < len(others); i += 2 {
			with[others[i]] = others[i+1]
		}
		all = append(all, refusedAnnotation{blamed: name, with: with})
	}
	// The pod as a whole.
	one("agent-inject", "yes")
	one("agent-inject-containers", "app, nobody")
	one("agent-share-process-namespace", "true")
	one("agent-configmap", "agent-config")
	all = append(all, refusedAnnotation{blamed: "agent-inject", namespace: "kube-system"})
	// Which Vault.
	one("service", "https://vault.evil.example:8200")
	one("service", "https://vault.evil.example:8200/v1")
	one("service", "")
	one("proxy-address", "http://proxy.evil.example:3128")
	one("tls-skip-verify", "true")
	one("tls-skip-verify", "maybe")
	one("ca-cert", "/etc/ssl/ca.pem")
	one("ca-cert", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	one("ca-cert", "/vault/tls/ca.crt")
	one("ca-cert", "/vault/tls/ca.crt", "tls-secret", "vault-tls")
	one("ca-key", "/etc/ssl")
	one("client-cert", "/vault/tls/tls.crt")
	one("client-cert", "/home/vault/tls.crt", "client-key", "/home/vault/tls.key")
	one("client-key", "/vault/tls/tls.key")
	one("tls-secret", "Not_a_name")
	one("tls-secret", "vault-tls", "ca-cert", "/vault/tls/ca.crt", "agent-extra-secret", "more", "client-cert", "/vault/custom/c", "client-key", "/vault/custom/k")
	one("agent-extra-secret", "Not_a_name")
	one("namespace", "../other")
	one("client-max-retries", "many")
	one("client-max-retries", "-1")
	one("client-timeout", "soon")
	one("template-max-connections-per-host", "many")
	one("agent-disable-idle-connections", "everything")
	// Who enters.
	one("role", rig.Absent, "auth-type", rig.Absent)
	for _, method := range []string{"aws", "azure", "gcp", "cert", "alicloud", "cf", "oci", "token_file", "approle", ""} {
		one("auth-type", method)
	}
	one("auth-path", "")
	one("auth-path", "auth/../sys")
	one("auth-path", "kubernetes")
	one("auth-config-remove-everything", "true")
	one("auth-config-role-id-file-path", "/etc/role-id", "auth-type", "approle")
	one("auth-config-path", "/home/vault/token")
	one("auth-config-token-path", "/home/vault/token", "auth-type", rig.Absent)
	one("agent-service-account-token-volume-name", "nowhere")
	one("agent-service-account-token-volume-name", "token", "!token-audience/token", "mars")
	one("auth-min-backoff", "5")
	one("auth-max-backoff", "soon")
	one("agent-auto-auth-exit-on-err", "maybe")
	// Files.
	one("agent-inject-secret-x", `pki/issue/r" "{{`)
	one("agent-inject-template-x", `{{ with secret "old/app" }}`)
	for _, function := range []string{"plugin", "sockaddr", "key"} {
		one("agent-inject-template-x", "{{ "+function+` "x" }}`)
	}
	one("agent-inject-template-file-x", "/etc/templates/x.ctmpl")
	one("agent-inject-command-db", "kill -HUP 1")
	one("agent-inject-command-db", "chmod 0600 /vault/secrets/db")
	one("agent-inject-default-template", "yaml")
	one("agent-inject-file-db", "../../etc/passwd")
	one("agent-inject-file-db", "..data")
	one("agent-inject-secret-other", "old/app", "agent-inject-file-other", "a/../same", "agent-inject-file-db", "same")
	one("agent-inject-secret-foo", "old/app", "agent-inject-secret-FOO", "old/app")
	one("agent-inject-template-foo", "x", "agent-inject-secret-FOO", "old/app")
	one("agent-inject-secret-sub", "old/app", "agent-inject-file-sub", "db/x")
	one("agent-inject-secret-file-foo", "old/app", "agent-inject-template-file-foo", "/x")
	one("agent-inject-perms-db", "rw-r-----")
	one("agent-inject-perms-db", "17777")
	one("agent-inject-perms-dbb", "0600")
	one("error-on-missing-key-db", "maybe")
	one("agent-template-left-delim-x", "[[", "agent-inject-secret-x", "old/app")
	one("agent-template-right-delim-x", "]]", "agent-inject-secret-x", "old/app")
	one("secret-volume-path", "")
	one("secret-volume-path", "secrets")
	one("secret-volume-path", "/")
	one("secret-volume-path-db", "secrets")
	one("preserve-secret-case", "maybe")
	one("preserve-secret-case-db", "maybe")
	// Owners.
	one("agent-run-as-user", "")
	one("agent-run-as-group", "staff")
	one("agent-run-as-same-user", "true")
	one("agent-run-as-same-user", "true", "!container-run-as-user", "0")
	one("agent-set-security-context", "maybe")
	// The agent that is not there.
	one("agent-pre-populate", "false", "agent-pre-populate-only", "true")
	one("agent-cache-enable", "true")
	one("agent-enable-quit", "true")
	one("agent-revoke-grace", "5s")
	one("template-lease-renewal-threshold", "2")
	one("template-static-secret-render-interval", "soon")
	for _, field := range []string{"env", "envFrom", "args", "command", "image", "volumeMounts"} {
		one("agent-json-patch", `[{"op":"add","path":"/`+field+`/-","value":"x"}]`)
	}
	one("agent-init-json-patch", `[{"op":"add"`)
	one("agent-limits-cpu", "a lot")
	return all
}
