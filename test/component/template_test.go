package component

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/test/rig"
)

// One template, three files with owners of their own, in one set with the others.
func TestTemplatesWriteFurtherFiles(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture, func(c *driver.Config) { c.HostIP = "192.0.2.7" })
	request := n.request(t, "writes", map[string]string{
		"mount-path": "/etc/web", "gid": "2000", "secret/app": "old/app",
		"template/web": `{{ with secret "internal/database/config" }}{{ .Data.data.username }}` +
			`{{ .Data.data.password | writeToFile "/etc/web/tls/key" "vault" "" "0400" }}` +
			`{{ env "POD_NAME" | writeToFile "tls/pod" "" "" "0644" "newline" }}{{ end }}@{{ env "HOST_IP" }}`,
	})
	n.mustPublish(t, request)
	want := map[string]struct {
		content  string
		uid, gid uint32
		mode     uint32
	}{
		"web":     {"db-readonly-username@192.0.2.7", 0, 2000, 0o644},
		"app":     {"html: <&>\nname: value\n", 0, 2000, 0o644},
		"tls/key": {password, 100, 2000, 0o400},
		"tls/pod": {"writes\n", 0, 2000, 0o644},
	}
	for name, w := range want {
		var stat syscall.Stat_t
		require.NoError(t, syscall.Stat(rig.VolumeFile(request, name), &stat))
		if content := mustRead(t, rig.VolumeFile(request, name)); content != w.content || stat.Uid != w.uid || stat.Gid != w.gid || stat.Mode&0o7777 != w.mode {
			t.Errorf("%s holds %q, %d:%d %o", name, content, stat.Uid, stat.Gid, stat.Mode&0o7777)
		}
	}
	generation, err := os.Readlink(rig.VolumeFile(request, "..data"))
	require.NoError(t, err)
	if _, err := os.Stat(rig.VolumeFile(request, generation+"/tls/key")); err != nil {
		t.Errorf("the written file is not in the set that is swapped at once: %v", err)
	}
}

func TestTemplatesHaveTheLimitsOfTheVolume(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	tests := map[string]struct {
		attributes map[string]string
		code       codes.Code
		want       string
	}{
		"two at one place": {
			map[string]string{"template/a": `{{ "x" | writeToFile "b" "" "" "0644" }}`, "template/b": "y"},
			codes.InvalidArgument, `render file "a": invalid template: writeToFile in "a" and the attribute of "b" make the same file "b"`,
		},
		"outside of the mount": {
			map[string]string{"template/a": `{{ "x" | writeToFile "/vault/secrets/b" "" "" "0644" }}`, "mount-path": "/etc/web"},
			codes.InvalidArgument, `"/vault/secrets/b" is not a file below /etc/web`,
		},
		"larger than the volume": {
			map[string]string{"template/a": `{{ range loop 600 }}{{ "ten bytes " | writeToFile "b" "" "" "0644" "append" }}{{ end }}`, "size": "8192"},
			codes.ResourceExhausted, `set size: `,
		},
		"a path that is a secret value": {
			map[string]string{"template/a": `{{ with secret "internal/database/config" }}{{ secret .Data.data.password }}{{ end }}`},
			codes.PermissionDenied, `render file "a": a path made of a secret: refused by Vault: permission denied; `,
		},
		"a path with a secret value that is cut off": {
			map[string]string{"template/a": `{{ with secret "internal/database/config" }}{{ secret (printf "%s#x" .Data.data.password) }}{{ end }}`},
			codes.PermissionDenied, `a path made of a secret: refused by Vault: permission denied; `,
		},
		"a secret value that makes no path": {
			map[string]string{"template/a": `{{ with secret "internal/database/config" }}{{ secret (printf "%s%%zz" .Data.data.password) }}{{ end }}`},
			codes.InvalidArgument, `a path made of a secret: invalid request; `,
		},
		"an address that is not known": {
			map[string]string{"template/a": `{{ env "HOST_IP" }}`},
			codes.FailedPrecondition, `HOST_IP is not known on this node; the driver gets HOST_IP from --host-ip`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := n.request(t, strings.ReplaceAll(name, " ", "-"), test.attributes)
			_, err := n.calls.NodePublishVolume(t.Context(), request)
			if status.Code(err) != test.code || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s: … %s", err, test.code, test.want)
			}
			if strings.Contains(fmt.Sprint(err), password) {
				t.Error("the error holds the password")
			}
			rig.RequireNothing(t, request.GetTargetPath())
		})
	}
	rig.Eventually(t, "Vault holds no token of a failed publish", func() bool { return fixture.PodTokens(t) == 0 })
	n.logs.requireNone(t, password)
}

func TestTemplateOfTheVolumesSecret(t *testing.T) {
	fixture := rig.StartVault(t)
	n := startNode(t, fixture.Server.Address, fixture)
	secret := map[string]string{"db.tmpl": connectionTemplate, "broken.tmpl": "{{ with", "other.tmpl": `[[ with secret "old/app" ]][[ .Data.name ]][[ end ]]`}
	n.requirePublished(t, "whole", map[string]string{"template/a": rig.Absent, "template-key/a": "db.tmpl"}, secret)
	got, err := n.publish(t, "delimiters", map[string]string{"template/a": rig.Absent, "template-key/a": "other.tmpl", "left-delim/a": "[[", "right-delim/a": "]]"}, secret)
	if err != nil || got != "value" {
		t.Errorf("got %q, %v", got, err)
	}
	for key, want := range map[string]string{
		"broken.tmpl": `file "a"`,
		"typo.tmpl":   `volume attribute "template-key/a": names the key "typo.tmpl", which the Secret of csi.nodePublishSecretRef lacks`,
	} {
		_, err := n.publish(t, strings.TrimSuffix(key, ".tmpl"), map[string]string{"template/a": rig.Absent, "template-key/a": key}, secret)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", key, err)
		}
	}
}
