package component

import (
	"fmt"
	"maps"
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
