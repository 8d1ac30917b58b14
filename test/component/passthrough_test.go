package component

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/test/rig"
)

// verbatim is the annotations of a pod as attributes of its volume; a name
// without a slash is one of the injector's, "!name" one that is no annotation.
func passthrough(annotations map[string]string) map[string]string {
	attributes := map[string]string{"role": rig.Absent, "auth-type": rig.Absent}
	for name, value := range annotations {
		if key, plain := strings.CutPrefix(name, "!"); plain {
			attributes[key] = value
			continue
		}
		attributes[injector.DefaultPrefix+name] = value
	}
	return attributes
}

// usual are the annotations of a pod for which all is well here.
func usual() map[string]string {
	return map[string]string{
		"agent-inject": "true", "agent-inject-status": "update", "role": "internal-app", "auth-type": "jwt", "auth-path": "auth/jwt",
		"agent-inject-template-db": connectionTemplate,
	}
}

func TestPublishTakesAnnotations(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	annotations := usual()
	maps.Copy(annotations, map[string]string{
		"agent-inject-perms-db": "0440", "agent-inject-secret-App.txt": "old/app", "secret-volume-path-App.txt": "/etc/app", "agent-inject-file-App.txt": "conf/app",
		"agent-inject-secret-in": "old/app", "secret-volume-path-in": "/vault/secrets/in",
		"agent-run-as-same-user": "true", "!container-run-as-user": "1234", "agent-image": "canary-value:1",
	})
	tests := map[string]struct {
		mountPath, fsGroup, file, want string
		uid, gid, mode                 uint32
	}{
		"a template":            {"/vault/secrets", "", "db", connection, 1234, 1000, 0o440},
		"a mount inside":        {"/vault/secrets", "", "in/in", "html: <&>\nname: value\n", 1234, 1000, 0o644},
		"another mount path":    {"/etc/app", "", "conf/app", "html: <&>\nname: value\n", 1234, 1000, 0o644},
		"the group of the pod":  {"/vault/secrets", "2000", "db", connection, 1234, 2000, 0o440},
		"path with final slash": {"/etc/app/", "", "conf/app", "html: <&>\nname: value\n", 1234, 1000, 0o644},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			attributes := passthrough(annotations)
			attributes["mount-path"] = test.mountPath
			request := n.request(t, strings.ReplaceAll(name, " ", "-"), attributes)
			request.GetVolumeCapability().GetMount().VolumeMountGroup = test.fsGroup
			for range 2 {
				n.mustPublish(t, request)
			}
			if got := mustRead(t, rig.VolumeFile(request, test.file)); got != test.want {
				t.Errorf("%s holds %q", test.file, got)
			}
			var stat syscall.Stat_t
			require.NoError(t, syscall.Stat(rig.VolumeFile(request, test.file), &stat))
			if stat.Uid != test.uid || stat.Gid != test.gid || stat.Mode&0o7777 != test.mode {
				t.Errorf("%s is %d:%d %o", test.file, stat.Uid, stat.Gid, stat.Mode&0o7777)
			}
		})
	}
	// Once a volume, and not when the kubelet publishes again.
	logs := n.logs.String()
	if got := strings.Count(logs, `Annotations without an effect`); got != len(tests) {
		t.Errorf("warnings are logged %d times for %d volumes", got, len(tests))
	}
	if !strings.Contains(logs, `annotations=["vault.hashicorp.com/agent-image"]`) {
		t.Error("the log does not name the annotation without an effect")
	}
	n.logs.requireNone(t, password, "canary-value")
}

func TestAnnotationsOfAnotherPrefix(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture, func(c *driver.Config) { c.Annotations.Prefix = "openbao.openbao.org/" })
	attributes := map[string]string{"role": rig.Absent, "auth-type": rig.Absent}
	for name, value := range usual() {
		attributes["openbao.openbao.org/"+name] = value
	}
	request := n.request(t, "bao", attributes)
	n.mustPublish(t, request)
	if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
		t.Errorf("the file holds %q", got)
	}
}

// What an administrator allows the webhook, the driver has to be allowed as well.
func TestAllowedAnnotations(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture, func(c *driver.Config) {
		c.Annotations.AllowQuit, c.Annotations.AllowUnknownPerms = true, true
	})
	annotations := usual()
	annotations["agent-enable-quit"], annotations["agent-inject-perms-dbb"] = "true", "0600"
	request := n.request(t, "allowed", passthrough(annotations))
	n.mustPublish(t, request)
	if want := `annotations=["vault.hashicorp.com/agent-enable-quit","vault.hashicorp.com/agent-inject-perms-dbb"]`; !strings.Contains(n.logs.String(), want) {
		t.Errorf("the log does not hold %s", want)
	}
}

// Whatever an admission component would refuse, the driver refuses as well:
// anybody may write a volume by hand. Each value of the injector's annotations
// that cannot be honoured comes as InvalidArgument that names the annotation, and
// mounts nothing. The file is for reading.
func TestRefusedAnnotations(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture, func(c *driver.Config) { c.Vault.ForbidSkipVerify = true })
	var report strings.Builder
	for i, test := range refusedAnnotations() {
		annotations := usual()
		for name, value := range test.with {
			if value == rig.Absent {
				delete(annotations, name)
				continue
			}
			annotations[name] = value
		}
		pod := podName(i)
		request := n.request(t, pod, passthrough(annotations))
		if test.namespace != "" {
			request.VolumeContext["csi.storage.k8s.io/pod.namespace"] = test.namespace
		}
		_, err := n.calls.NodePublishVolume(t.Context(), request)
		message := normalize(status.Convert(err).Message())
		fmt.Fprintf(&report, "%s\n  %s: %s\n\n", strings.Join(test.describe(), ", "), status.Code(err), message)
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", test.with, err)
		}
		if want := fmt.Sprintf("volume attribute %q: ", injector.DefaultPrefix+test.blamed); !strings.Contains(message, want) {
			t.Errorf("%v: %s\nis not about %s", test.with, message, test.blamed)
		}
		rig.RequireNothing(t, request.GetTargetPath())
	}
	if left := fixture.PodTokens(t); left != 0 {
		t.Errorf("%d Vault tokens are left", left)
	}
	compareGolden(t, "testdata/refused-annotations.txt", report.String())
}

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
