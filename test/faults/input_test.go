package faults

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/vaultmount/vaultmount/test/canary"
	"github.com/vaultmount/vaultmount/test/rig"
	"github.com/vaultmount/vaultmount/test/tally"
)

// secretCanary is in the Secret of each volume, tokenCanary in what comes under
// the name of a service-account token.
const (
	secretCanary = "canary-of-the-secret"
	tokenCanary  = "canary-of-the-token"
)

// badCall is a publish that must be refused.
type badCall struct {
	name       string
	attributes map[string]string
	change     func(*csi.NodePublishVolumeRequest)
}

// The driver is handed whatever a user, a kubelet or a broken cluster could hand
// it. Each call gets one error that says what is wrong; it mounts nothing, and
// nothing of it is logged that is secret. What people read is in testdata.
func TestBadInput(t *testing.T) {
	vault := rig.StartVault(t)
	n := startNode(t, vault, vault.Server.Address, "--forbid-token-file", "--forbid-tls-skip-verify")
	canaries := canary.Canaries{"a value of the Secret": secretCanary, "the token": tokenCanary, "the password": rig.Password}
	var report strings.Builder
	lost := 0
	calls := badCalls()
	for i, call := range calls {
		request := n.request(t, fmt.Sprintf("bad-%d", i), map[string]string{"template/a": `{{ with secret "internal/data/database/config" }}x{{ end }}`})
		target := request.GetTargetPath()
		request.Secrets["key"] = secretCanary
		maps.Copy(request.VolumeContext, call.attributes)
		maps.DeleteFunc(request.VolumeContext, func(_, value string) bool { return value == rig.Absent })
		if call.change != nil {
			call.change(request)
		}
		err := n.Publish(t.Context(), request)
		message := status.Convert(err).Message()
		fmt.Fprintf(&report, "%s\n  %s: %s\n\n", call.name, status.Code(err), normalizePaths(n.Root, normalize(message)))
		found := canaries.Find(message)
		if !isRefusal(status.Code(err)) || len(found) > 0 || len(n.Mounts(t)) > 0 {
			t.Errorf("%s: %v; the message holds %q, mounted are %q", call.name, err, found, n.Mounts(t))
			lost++
		}
		if err == nil {
			n.MustUnpublish(t, request)
			continue
		}
		rig.RequireNothing(t, target)
	}
	n.requireClean(t)
	if got := vault.PodTokens(t); got != 0 {
		t.Errorf("Vault holds %d tokens of pods", got)
	}
	n.Process.Stop(t)
	canaries.RequireNone(t, "log of the driver", n.Process.Log.String())
	if lost == 0 && t.Failed() {
		lost = 1
	}
	tally.Record(t, "malformed publishes", len(calls), lost)
	compareGolden(t, "testdata/bad-input.txt", report.String())
}

func isRefusal(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.PermissionDenied, codes.NotFound:
		return true
	}
	return false
}

var (
	longPath   = regexp.MustCompile(`((?:/?x){10})(?:/?x)*/?\.\.\.`)
	pathLength = regexp.MustCompile(`\d+( bytes exceed the limit of \d+ \(target-path-bytes\))`)
)

// normalizePaths takes the root out of a message, and what depends on the length of the root:
// where a long path is cut, and how long it is.
func normalizePaths(root, message string) string {
	message = pathLength.ReplaceAllString(message, "N$1")
	return longPath.ReplaceAllString(strings.ReplaceAll(message, root, "/var/lib/kubelet"), "$1...")
}

func badCalls() []badCall {
	var all []badCall
	all = append(all, badRequests()...)
	all = append(all, badTokens()...)
	for _, a := range badAttributes() {
		name := "attributes:"
		for i := 0; i < len(a); i += 2 {
			value := a[i+1]
			if value == rig.Absent {
				value = "(absent)"
			}
			name += fmt.Sprintf(" %s=%s", short(a[i]), short(value))
		}
		all = append(all, badCall{name: name, attributes: pairs(a)})
	}
	for _, a := range badAnnotations() {
		annotations := map[string]string{"role": rig.Absent, "auth-type": rig.Absent, "template/a": rig.Absent, prefix + "agent-inject": "true", prefix + "role": rig.Role, prefix + "agent-inject-secret-a": "old/app"}
		name := "annotations:"
		for i := 0; i < len(a); i += 2 {
			annotations[prefix+a[i]] = a[i+1]
			name += fmt.Sprintf(" %s=%s", short(a[i]), short(strings.ReplaceAll(a[i+1], rig.Absent, "(absent)")))
		}
		all = append(all, badCall{name: name, attributes: annotations})
	}
	return all
}

const prefix = "vault.hashicorp.com/"

func pairs(list []string) map[string]string {
	attributes := map[string]string{}
	for i := 0; i < len(list); i += 2 {
		attributes[list[i]] = list[i+1]
	}
	return attributes
}

// short keeps the table readable.
func short(text string) string {
	quoted := fmt.Sprintf("%+q", text)
	if len(quoted) > 70 {
		return fmt.Sprintf("%s… (%d bytes)", quoted[:40], len(text))
	}
	return quoted
}

func badRequests() []badCall {
	change := func(name string, change func(*csi.NodePublishVolumeRequest)) badCall {
		return badCall{name: "request: " + name, change: change}
	}
	target := func(path string) func(*csi.NodePublishVolumeRequest) {
		return func(r *csi.NodePublishVolumeRequest) { r.TargetPath = path }
	}
	without := func(key string) func(*csi.NodePublishVolumeRequest) {
		return func(r *csi.NodePublishVolumeRequest) { delete(r.VolumeContext, rig.KubeletPrefix+key) }
	}
	return []badCall{
		change("empty", func(r *csi.NodePublishVolumeRequest) { proto.Reset(r) }),
		change("no volume id", func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }),
		change("no target path", target("")),
		change("relative target path", target("pods/x/mount")),
		change("target path is the root", target("/")),
		change("target path of the system", target("/etc")),
		change("target path with dots", func(r *csi.NodePublishVolumeRequest) { r.TargetPath += "/../../mount" }),
		change("target path with two slashes", func(r *csi.NodePublishVolumeRequest) {
			r.TargetPath = strings.Replace(r.TargetPath, "/pods/", "//pods/", 1)
		}),
		change("target path with a zero byte", func(r *csi.NodePublishVolumeRequest) { r.TargetPath += "\x00" }),
		change("target path that is too long", func(r *csi.NodePublishVolumeRequest) { r.TargetPath += strings.Repeat("x", 300) }),
		change("no capability", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil }),
		change("capability of nothing", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = &csi.VolumeCapability{} }),
		change("block device", func(r *csi.NodePublishVolumeRequest) {
			r.VolumeCapability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		}),
		change("not read-only", func(r *csi.NodePublishVolumeRequest) { r.Readonly = false }),
		change("volume id that is too long", func(r *csi.NodePublishVolumeRequest) { r.VolumeId = strings.Repeat("x", 1<<20) }),
		change("pod name that is too long", func(r *csi.NodePublishVolumeRequest) {
			r.VolumeContext[rig.KubeletPrefix+"pod.name"] = strings.Repeat("x", 1<<20)
		}),
		change("target path of a megabyte", func(r *csi.NodePublishVolumeRequest) { r.TargetPath += strings.Repeat("/x", 1<<19) }),
		change("other file system", func(r *csi.NodePublishVolumeRequest) { r.GetVolumeCapability().GetMount().FsType = "ext4" }),
		change("group that is no number", func(r *csi.NodePublishVolumeRequest) {
			r.GetVolumeCapability().GetMount().VolumeMountGroup = "staff"
		}),
		change("negative group", func(r *csi.NodePublishVolumeRequest) {
			r.GetVolumeCapability().GetMount().VolumeMountGroup = "-1"
		}),
		change("group that is too large", func(r *csi.NodePublishVolumeRequest) {
			r.GetVolumeCapability().GetMount().VolumeMountGroup = "4294967295"
		}),
		change("no context", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext = nil }),
		change("persistent volume", without("ephemeral")),
		change("no pod name", without("pod.name")),
		change("no pod namespace", without("pod.namespace")),
		change("no pod uid", without("pod.uid")),
		change("no service account", without("serviceAccount.name")),
		change("other pod", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[rig.KubeletPrefix+"pod.name"] = "other" }),
		change("other namespace", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[rig.KubeletPrefix+"pod.namespace"] = "other" }),
		change("other service account", func(r *csi.NodePublishVolumeRequest) {
			r.VolumeContext[rig.KubeletPrefix+"serviceAccount.name"] = "other"
		}),
		change("pod that was made again", func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[rig.KubeletPrefix+"pod.uid"] = "other" }),
	}
}

func badTokens() []badCall {
	var all []badCall
	for name, tokens := range map[string]string{
		"empty":                   "",
		"no JSON":                 tokenCanary,
		"a list":                  `["` + tokenCanary + `"]`,
		"a string":                `"` + tokenCanary + `"`,
		"null":                    "null",
		"an empty object":         "{}",
		"a token without object":  `{"vault":"` + tokenCanary + `"}`,
		"a number as token":       `{"vault":{"token":42}}`,
		"an empty token":          `{"vault":{"token":""}}`,
		"another audience":        `{"mars":{"token":"` + tokenCanary + `"}}`,
		"a token that is no JWT":  `{"vault":{"token":"` + tokenCanary + `"}}`,
		"a JWT of three words":    `{"vault":{"token":"` + tokenCanary + `.b.c"}}`,
		"a JWT without signature": `{"vault":{"token":"eyJhbGciOiJub25lIn0.e30."}}`,
		"JSON that is cut off":    `{"vault":{"token":"` + tokenCanary,
		"a megabyte":              `{"vault":{"token":"` + strings.Repeat("a", 1<<20) + `"}}`,
		"deep JSON":               strings.Repeat(`{"vault":`, 10000),
	} {
		all = append(all, badCall{name: "tokens: " + name, change: func(r *csi.NodePublishVolumeRequest) { r.Secrets[rig.TokensKey] = tokens }})
	}
	all = append(all,
		badCall{name: "tokens: none", change: func(r *csi.NodePublishVolumeRequest) { delete(r.Secrets, rig.TokensKey) }},
		badCall{name: "tokens: planted by the user", change: func(r *csi.NodePublishVolumeRequest) { r.VolumeContext[rig.TokensKey] = tokenCanary }},
	)
	slices.SortFunc(all, func(a, b badCall) int { return strings.Compare(a.name, b.name) })
	return all
}

// badAttributes are pairs of keys and values, in a volume that is good without them.
func badAttributes() [][]string {
	long := strings.Repeat("x", 5000)
	return [][]string{
		{"typo", "x"}, {"templat/b", "x"}, {"Template/b", "x"}, {"rol", "x"}, {"", "x"}, {"/", "x"}, {"template", "x"}, {"vault.hashicorp.com/role", "x"},
		{"role", rig.Absent, "auth-type", "kubernetes"}, {"role", "", "auth-type", "kubernetes"}, {"auth-type", "ldap"}, {"auth-type", ""}, {"auth-type", "KUBERNETES"},
		{"auth-path", "kubernetes"}, {"auth-path", "auth/"}, {"auth-path", "auth/../sys"}, {"auth-path", "auth/jwt?x=1"},
		{"audience", "mars"}, {"role-id", "key"}, {"secret-id", "key"}, {"auth-type", "approle", "role", rig.Absent}, {"auth-type", "approle"}, {"auth-type", "approle", "role", rig.Absent, "role-id", "key", "secret-id", "typo"},
		{"address", "vault"}, {"address", "ftp://vault"}, {"address", "https://vault.evil.example"}, {"address", "https://user:" + secretCanary + "@vault"}, {"address", "https://vault/v1"}, {"address", "https://"}, {"address", "http://[::1"}, {"address", ""},
		{"namespace", "../root"}, {"namespace", "a b"}, {"namespace", "a\nX-Vault-Token: b"},
		{"tls-server-name", "a b"}, {"tls-server-name", "https://vault"}, {"tls-server-name", ""},
		{"ca-cert", "typo"}, {"ca-cert", "key"}, {"client-cert", "key"}, {"client-key", "key"}, {"client-cert", "key", "client-key", "key"}, {"tls-skip-verify", "true"}, {"tls-skip-verify", "maybe"},
		{"proxy-address", "http://proxy.evil.example:3128"}, {"proxy-address", "proxy"}, {"client-timeout", "soon"}, {"client-timeout", "-1s"}, {"client-max-retries", "many"}, {"client-max-retries", "-5"}, {"client-max-retries", "1e3"},
		{"auth-min-backoff", "x"}, {"auth-max-backoff", "-1s"}, {"auth-min-backoff", "9s", "auth-max-backoff", "1s"},
		{"static-secret-render-interval", "never"}, {"static-secret-render-interval", "-1m"}, {"static-secret-render-interval", "0s"}, {"lease-renewal-threshold", "2"}, {"lease-renewal-threshold", "0"}, {"lease-renewal-threshold", "NaN"}, {"lease-renewal-threshold", "-0.5"}, {"lease-renewal-threshold", "x"},
		{"refresh", "sometimes"}, {"revoke-on-unpublish", "1.0"}, {"token-file", "token"}, {"token-file", "../token"},
		{"uid", "root"}, {"uid", "-1"}, {"uid", "4294967295"}, {"gid", "0x10"}, {"gid", "1.5"}, {"size", "big"}, {"size", "0"}, {"size", "-1Mi"}, {"size", "1Gi"}, {"size", "1e30"}, {"size", "100"},
		{"perms/a", "rw"}, {"perms/a", "999"}, {"perms/a", "07777777"}, {"perms/a", "-1"}, {"perms/b", "0640"}, {"error-on-missing-key/a", "x"}, {"error-on-missing-key/b", "true"}, {"left-delim/a", ""}, {"right-delim/a", " "}, {"left-delim/b", "[["}, {"default-template", "yaml"},
		{"template/../b", "x"}, {"template//b", "x"}, {"template/b/", "x"}, {"template/.", "x"}, {"template/..data", "x"}, {"template/a/b", "x"}, {"template/b\x00", "x"}, {"template/" + long, "x"}, {"template/" + strings.Repeat("n", 256), "x"}, {"template/" + strings.Repeat("d/", 2048) + "f", "x"}, {"template/b", "x", "secret/b", "old/app"},
		{"template/b", ""}, {"template/b", "{{"}, {"template/b", "{{ nothing }}"}, {"template/b", "{{ end }}"}, {"template/b", `{{ secret "" }}`}, {"template/b", `{{ secret }}`}, {"template/b", `{{ with secret }}x{{ else }}y{{ end }}`}, {"template/b", `{{ "x" | writeToFile "` + strings.Repeat("n", 256) + `" "" "" "0600" }}`}, {"template/b", `{{ secret "../sys" }}`}, {"template/b", `{{ secret "internal/../../sys/seal" }}`}, {"template/b", `{{ secret "https://x" }}`}, {"template/b", `{{ secret "internal/\x00" }}`},
		{"template/b", `{{ file "/etc/shadow" }}`}, {"template/b", `{{ env "HOME" }}`}, {"template/b", `{{ plugin "x" }}`}, {"template/b", `{{ key "x" }}`}, {"template/b", `{{ service "x" }}`}, {"template/b", `{{ template "nowhere" }}`}, {"template/b", `{{ with secret "old/app" }}{{ .Data.name.x.y }}{{ end }}`}, {"template/b", `{{ fail "by hand" }}`}, {"template/b", `{{ index (slice 1 2) 9 }}`}, {"template/b", `{{ "x" | parseInt }}`}, {"template/b", `{{ with secret "old/app" }}{{ secret .Data.html }}{{ end }}`}, {"template/b", `{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`},
		{"secret/b", ""}, {"secret/b", "internal/data/nowhere"}, {"secret/b", "sys/seal"}, {"secret/b", "../x"}, {"secret/b", "https://vault/x"}, {"template-key/b", "typo"}, {"template-key/b", ""}, {"template-key/b", "key", "template/b", "x"},
		{"template/a", rig.Absent},
	}
}

// badAnnotations are pairs, in a pod whose annotations are good without them.
func badAnnotations() [][]string {
	return [][]string{
		{"agent-inject", "yes"}, {"agent-inject", ""}, {"role", rig.Absent}, {"role", ""}, {"agent-inject-secret-../x", "old/app"}, {"agent-inject-secret-a", ""},
		{"agent-inject-secret-a", rig.Absent}, {"agent-inject-template-a", "{{"}, {"agent-inject-template-a", "{{ nothing }}"}, {"agent-inject-perms-a", "rw"}, {"agent-inject-perms-b", "0640"}, {"agent-inject-file-a", "../../x"},
		{"agent-inject-secret-", "old/app"}, {"agent-inject-template-", "x"}, {"agent-inject-template-file-", "/vault/custom/x"}, {"agent-inject-file-", "x"}, {"agent-inject-file-a", strings.Repeat("n", 256)}, {"agent-inject-file-a", strings.Repeat("d/", 2048) + "f"}, {"tls-server-name", "a b"}, {"agent-inject-template-a", "{{ secret }}"},
		{"agent-inject-command-a", "kill -HUP 1"}, {"agent-configmap", "x"}, {"agent-cache-enable", "true"}, {"agent-enable-quit", "true"}, {"agent-inject-template-file-a", "/etc/x"}, {"auth-path", "kubernetes"}, {"auth-type", "ldap"}, {"auth-config-x", "y"},
		{"service", "https://vault.evil.example"}, {"service", "x"}, {"tls-skip-verify", "true"}, {"ca-cert", "/etc/ssl/ca.crt"}, {"client-timeout", "soon"}, {"client-max-retries", "x"}, {"agent-run-as-user", "root"}, {"agent-run-as-group", "-1"}, {"secret-volume-path", "relative"},
		{"agent-inject-default-template", "yaml"}, {"template-static-secret-render-interval", "x"}, {"template-config-exit-on-retry-failure", "x"}, {"preserve-secret-case", "x"}, {"error-on-missing-key-a", "x"}, {"agent-inject-token", "x"}, {"agent-revoke-on-shutdown", "x"}, {"agent-extra-secret", "x", "agent-inject-template-file-a", "/vault/custom/typo"},
	}
}
