package component

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/test/rig"
)

const connectionTemplate = "{{- with secret \"internal/data/database/config\" -}}\npostgresql://{{ .Data.data.username }}:{{ .Data.data.password }}@postgres:5432/wizard\n{{- end -}}\n"

const connection = "postgresql://db-readonly-username:db-secret-password@postgres:5432/wizard"

func TestPublishWritesWhatTheAttributesAsk(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	longest := strings.Repeat(strings.Repeat("d", 250)+"/", 4) + strings.Repeat("f", 20)
	tests := map[string]struct {
		attributes map[string]string
		want       map[string]string
	}{
		"template": {
			map[string]string{"template/database-config.txt": connectionTemplate},
			map[string]string{"database-config.txt": connection},
		},
		"path without data": {
			map[string]string{"template/db": `{{ with secret "internal/database/config" }}{{ .Data.data.username }}{{ end }}`},
			map[string]string{"db": "db-readonly-username"},
		},
		"KV version 1, map and its order": {
			map[string]string{"secret/app": "old/app"},
			map[string]string{"app": "html: <&>\nname: value\n"},
		},
		"KV version 1, json": {
			map[string]string{"secret/app": "old/app", "default-template": "json"},
			map[string]string{"app": `{"html":"\u003c\u0026\u003e","name":"value"}` + "\n"},
		},
		"other delimiters": {
			map[string]string{"template/db": `[[ with secret "old/app" ]]{{ [[ .Data.name ]] }}[[ end ]]`, "left-delim/db": "[[", "right-delim/db": "]]"},
			map[string]string{"db": "{{ value }}"},
		},
		"directories": {
			map[string]string{"secret/conf/a": "old/app", "template/conf/deep/b": "b"},
			map[string]string{"conf/a": "html: <&>\nname: value\n", "conf/deep/b": "b"},
		},
		"equal delimiters": {
			map[string]string{"template/db": `%% with secret "old/app" %%{{ %% .Data.name %% }}%% end %%`, "left-delim/db": "%%", "right-delim/db": "%%"},
			map[string]string{"db": "{{ value }}"},
		},
		"one delimiter": {
			map[string]string{"template/db": `[[ with secret "old/app" }}{{ [[ .Data.name }} }}[[ end }}`, "left-delim/db": "[["},
			map[string]string{"db": "{{ value }}"},
		},
		"the longest names": {
			map[string]string{"template/" + strings.Repeat("n", 255): "n", "template/" + longest: "f", "size": "16Ki"},
			map[string]string{strings.Repeat("n", 255): "n", longest: "f"},
		},
		"a path read from a secret": {
			map[string]string{"template/db": `{{ with secret "old/app" }}{{ with secret (printf "internal/data/database/%s" (.Data.name | replaceAll "value" "config")) }}{{ .Data.data.username }}{{ end }}{{ end }}`},
			map[string]string{"db": "db-readonly-username"},
		},
		"names": {
			map[string]string{"template/names": `{{ range secrets "internal/database" }}{{ . }};{{ end }}`},
			map[string]string{"names": "config;"},
		},
		"another readable path": {
			map[string]string{"template/self": `{{ with secret "auth/token/lookup-self" }}{{ .Data.path }}{{ end }}`},
			map[string]string{"self": "auth/jwt/login"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := n.request(t, strings.ReplaceAll(name, " ", "-"), test.attributes)
			n.mustPublish(t, request)
			for file, want := range test.want {
				if got := mustRead(t, rig.VolumeFile(request, file)); got != want {
					t.Errorf("%s holds %q, want %q", file, got, want)
				}
			}
		})
	}
}

// The tutorial's first output: metadata is in the file, so only its shape
// is fixed.
func TestPublishWritesTheMapOfAVersion2Secret(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	request := n.request(t, "map", map[string]string{"secret/database-config.txt": "internal/data/database/config"})
	n.mustPublish(t, request)
	got := mustRead(t, rig.VolumeFile(request, "database-config.txt"))
	first, second, _ := strings.Cut(got, "\n")
	if first != "data: map[password:db-secret-password username:db-readonly-username]" ||
		!strings.HasPrefix(second, "metadata: map[created_time:20") || !strings.HasSuffix(second, "Z custom_metadata:<nil> deletion_time: destroyed:false version:1]\n") {
		t.Errorf("got %q", got)
	}
}

func TestPublishSetsOwnersAndModes(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	tests := map[string]struct {
		attributes map[string]string
		fsGroup    string
		uid, gid   uint32
		mode       uint32
	}{
		"defaults":       {map[string]string{}, "", 0, 0, 0o644},
		"as asked":       {map[string]string{"uid": "100", "gid": "1000", "perms/app": "0440"}, "", 100, 1000, 0o440},
		"fsGroup wins":   {map[string]string{"gid": "1000", "perms/app": "640"}, "2000", 0, 2000, 0o640},
		"fsGroup and id": {map[string]string{"uid": "7"}, "2000", 7, 2000, 0o644},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.attributes["secret/app"] = "old/app"
			request := n.request(t, strings.ReplaceAll(name, " ", "-"), test.attributes)
			request.GetVolumeCapability().GetMount().VolumeMountGroup = test.fsGroup
			n.mustPublish(t, request)
			var stat syscall.Stat_t
			require.NoError(t, syscall.Stat(rig.VolumeFile(request, "app"), &stat))
			if stat.Uid != test.uid || stat.Gid != test.gid || stat.Mode&0o7777 != test.mode {
				t.Errorf("got %d:%d %o", stat.Uid, stat.Gid, stat.Mode)
			}
		})
	}
}

// Whatever is wrong at the first publish, nothing stays: no mount, no directory,
// no token in Vault. The kubelet will not ask to unpublish.
func TestPublishFailsWithAReasonAndLeavesNothing(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	large := strings.Repeat("x", 5000)
	tests := map[string]struct {
		attributes map[string]string
		change     func(*csi.NodePublishVolumeRequest)
		code       codes.Code
		want       string
	}{
		"unknown attribute": {map[string]string{"templat/a": "x"}, nil, codes.InvalidArgument, `volume "vault-secrets": volume attribute "templat/a": is unknown; did you mean "template/a"?`},
		"template syntax":   {map[string]string{"template/a": "{{ if }}"}, nil, codes.InvalidArgument, `volume "vault-secrets": render file "a": invalid template: line 1: missing value for if`},
		"host function":     {map[string]string{"template/a": `{{ file "/etc/shadow" }}`}, nil, codes.InvalidArgument, `render file "a": invalid template: line 1, column 4: file: "/etc/shadow" cannot be read: templates read no files of the pod`},
		"larger than allowed": {map[string]string{"template/a": "x", "size": "17Mi"}, nil, codes.InvalidArgument,
			`volume attribute "size": 17825792 bytes is more than the 16777216 that this cluster allows`},
		"larger than asked": {map[string]string{"template/a": large, "size": "8192"}, nil, codes.ResourceExhausted, `set size: `},
		"audience":          {map[string]string{"template/a": "x", "audience": "mars"}, nil, codes.InvalidArgument, `"mars" is not among the audiences`},
		"audience of the role": {map[string]string{"template/a": "x", "audience": ""}, nil, codes.PermissionDenied,
			`log in to Vault at http://127.0.0.1:`},
		"role": {map[string]string{"template/a": "x", "role": "nope"}, nil, codes.PermissionDenied,
			`through auth/jwt with role "nope" and service account default/internal-app: refused by Vault: role "nope" could not be found`},
		"service account": {map[string]string{"template/a": "x"}, func(r *csi.NodePublishVolumeRequest) {
			r.VolumeContext["csi.storage.k8s.io/serviceAccount.name"] = "website"
			r.Secrets["csi.storage.k8s.io/serviceAccount.tokens"] = fixture.Tokens(t, "service-account", "website")
		}, codes.PermissionDenied, `refused by Vault: error validating token`},
		"auth mount":   {map[string]string{"template/a": "x", "auth-path": "auth/nope"}, nil, codes.Unavailable, `either auth/nope is not a mounted auth method, or Vault's TokenReview of the pod's token failed`},
		"policy":       {map[string]string{"secret/a": "internal/data/other"}, nil, codes.PermissionDenied, `render file "a": read internal/data/other in Vault at http://127.0.0.1:`},
		"no secret":    {map[string]string{"secret/a": "internal/database/nope"}, nil, codes.NotFound, `read internal/data/database/nope: no such secret: nothing is stored at internal/database/nope, or it is deleted`},
		"missing key":  {map[string]string{"template/a": `{{ with secret "old/app" }}{{ .Data.nope }}{{ end }}`, "error-on-missing-key/a": "true"}, nil, codes.FailedPrecondition, `map has no entry for key "nope"`},
		"no token":     {map[string]string{"template/a": "x"}, func(r *csi.NodePublishVolumeRequest) { r.Secrets = nil }, codes.FailedPrecondition, `the CSIDriver object must have tokenRequests`},
		"no pod info":  {map[string]string{"template/a": "x"}, func(r *csi.NodePublishVolumeRequest) { delete(r.VolumeContext, "csi.storage.k8s.io/ephemeral") }, codes.FailedPrecondition, `podInfoOnMount: true`},
		"file system":  {map[string]string{"template/a": "x"}, func(r *csi.NodePublishVolumeRequest) { r.GetVolumeCapability().GetMount().FsType = "ext4" }, codes.InvalidArgument, `fsType: "ext4" is not available`},
		"no volume id": {map[string]string{"template/a": "x"}, func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }, codes.InvalidArgument, `volume_id: is missing from the request`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := n.request(t, strings.ReplaceAll(name, " ", "-"), test.attributes)
			if test.change != nil {
				test.change(request)
			}
			_, err := n.calls.NodePublishVolume(t.Context(), request)
			if status.Code(err) != test.code || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s: … %s", err, test.code, test.want)
			}
			rig.RequireNothing(t, request.GetTargetPath())
		})
	}
	rig.Eventually(t, "Vault holds no token of a failed publish", func() bool { return fixture.PodTokens(t) == 0 })
	n.logs.requireNone(t, password, "eyJ", "hvs.")
}

func TestPublishFailsWhileVaultIsDown(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, "http://127.0.0.1:1", fixture)
	request := n.request(t, "down", map[string]string{"template/a": "x"})
	_, err := n.calls.NodePublishVolume(t.Context(), request)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
	rig.RequireNothing(t, request.GetTargetPath())
}

// After the first publish, the kubelet's calls find the volume as it is: Vault
// may be gone and the token invalid, and the mount must not change under the
// containers.
func TestRepublishNeedsNoVaultAndNeverRemounts(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	request := n.request(t, "republished", map[string]string{"template/db": connectionTemplate})
	n.mustPublish(t, request)
	before := identify(t, request.GetTargetPath())
	require.NoError(t, fixture.Server.Stop())
	request.Secrets = map[string]string{"csi.storage.k8s.io/serviceAccount.tokens": "broken"}
	for range 3 {
		n.mustPublish(t, request)
	}
	if after := identify(t, request.GetTargetPath()); after != before {
		t.Errorf("the mount changed from %+v to %+v", before, after)
	}
	if got := mustRead(t, rig.VolumeFile(request, "db")); got != connection {
		t.Errorf("the file holds %q", got)
	}
}

type mountIdentity struct {
	device, inode uint64
	generation    string
}

func identify(t *testing.T, target string) mountIdentity {
	t.Helper()
	var stat syscall.Stat_t
	require.NoError(t, syscall.Stat(target, &stat))
	generation, err := os.Readlink(target + "/..data")
	require.NoError(t, err)
	return mountIdentity{stat.Dev, stat.Ino, generation}
}

func TestUnpublishRemovesAndRevokes(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	request := n.request(t, "leaving", map[string]string{"template/db": connectionTemplate})
	n.mustPublish(t, request)
	if got := fixture.PodTokens(t); got != 1 {
		t.Errorf("Vault holds %d tokens of pods, want 1", got)
	}
	for range 2 { // the kubelet may call again
		n.mustUnpublish(t, request)
	}
	rig.RequireNothing(t, request.GetTargetPath())
	rig.Eventually(t, "the token is revoked", func() bool { return fixture.PodTokens(t) == 0 })
}

func TestUnpublishOfWhatWasNeverThere(t *testing.T) {
	fixture := rig.NewIssuer(t)
	n := startNode(t, "http://127.0.0.1:1", fixture)
	target := n.kubelet.Root + "/pods/gone-uid/volumes/kubernetes.io~csi/vault-secrets/mount"
	if _, err := n.calls.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-gone", TargetPath: target}); err != nil {
		t.Error(err)
	}
	_, err := n.calls.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-gone", TargetPath: "/etc"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "--kubelet-root") {
		t.Errorf("a path outside the kubelet's directory: %v", err)
	}
}

func TestVolumeStats(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	request := n.request(t, "stats", map[string]string{"template/db": "x"})
	ask := func() (*csi.NodeGetVolumeStatsResponse, error) {
		return n.calls.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: request.GetVolumeId(), VolumePath: request.GetTargetPath()})
	}
	if _, err := ask(); status.Code(err) != codes.NotFound {
		t.Errorf("before it is published: %v", err)
	}
	n.mustPublish(t, request)
	stats, err := ask()
	require.NoError(t, err)
	usage := stats.GetUsage()
	if len(usage) != 2 || usage[0].GetUnit() != csi.VolumeUsage_BYTES || usage[0].GetTotal() != mebibyte || usage[0].GetUsed() != 4096 || usage[1].GetUnit() != csi.VolumeUsage_INODES || usage[1].GetUsed() == 0 {
		t.Errorf("got %v", usage)
	}
}

// The transport of Kubernetes before 1.36.
func TestPublishTakesTheTokenFromTheVolumeContext(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	request := n.request(t, "older", map[string]string{"template/db": connectionTemplate})
	const key = "csi.storage.k8s.io/serviceAccount.tokens"
	request.VolumeContext[key] = request.Secrets[key]
	request.Secrets = nil
	n.mustPublish(t, request)
	var tokens map[string]struct{ Token string }
	require.NoError(t, json.Unmarshal([]byte(request.VolumeContext[key]), &tokens))
	n.logs.requireNone(t, password, "hvs.", tokens["vault"].Token, tokens[""].Token)
}
