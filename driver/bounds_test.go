package driver

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// newNodeServer returns a server without volumes, and a request that passes all checks of
// its form.
func newNodeServer(t *testing.T, config Config, p volumes.Provider) (*NodeServer, *csi.NodePublishVolumeRequest) {
	t.Helper()
	config.Vault.ReadCA = func() (string, error) { return "", nil }
	d := NewNodeServer(config)
	d.Start(volumes.New(volumes.Config{Logger: klog.Background(), Mounter: mounter(t), Store: nothing{}, Provider: p, KubeletRoot: config.KubeletRoot}))
	return d, &csi.NodePublishVolumeRequest{
		VolumeId: "csi-1", Readonly: true,
		TargetPath:       filepath.Join(config.KubeletRoot, "pods", "1-2-3", "volumes", "kubernetes.io~csi", "secrets", "mount"),
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		VolumeContext: map[string]string{
			keyEphemeral: "true", keyPodName: "web", keyPodNamespace: "shop", keyPodUID: "1-2-3", keyServiceAccount: "app",
			"role": "app", "template/a": "x",
		},
		Secrets: map[string]string{keyTokens: bothTokens()},
	}
}

func mounter(t *testing.T) *tmpfs.Mounter {
	t.Helper()
	m, err := tmpfs.NewMounter("csi.vaultmount.dev")
	must(t, err)
	return m
}

func TestRequestLimits(t *testing.T) {
	t.Parallel()
	inContext := func(key string) func(*csi.NodePublishVolumeRequest, string) {
		return func(r *csi.NodePublishVolumeRequest, value string) { r.VolumeContext[key] = value }
	}
	for _, test := range []struct {
		name  string
		limit limits.Limit
		set   func(r *csi.NodePublishVolumeRequest, value string)
	}{
		{"volume id", limits.NameBytes, func(r *csi.NodePublishVolumeRequest, value string) { r.VolumeId = value }},
		{"target path", limits.TargetPathBytes, func(r *csi.NodePublishVolumeRequest, value string) { r.TargetPath = value }},
		{"file system", limits.NameBytes, func(r *csi.NodePublishVolumeRequest, value string) { r.VolumeCapability.GetMount().FsType = value }},
		{"fsGroup", limits.NameBytes, func(r *csi.NodePublishVolumeRequest, value string) {
			r.VolumeCapability.GetMount().VolumeMountGroup = value
		}},
		{"pod", limits.NameBytes, inContext(keyPodName)},
		{"namespace", limits.NameBytes, inContext(keyPodNamespace)},
		{"uid", limits.NameBytes, inContext(keyPodUID)},
		{"service account", limits.NameBytes, inContext(keyServiceAccount)},
		{"tokens in the context", limits.CredentialBytes, inContext(keyTokens)},
		{"tokens", limits.CredentialBytes, func(r *csi.NodePublishVolumeRequest, value string) { r.Secrets[keyTokens] = value }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, request := newNodeServer(t, newNode(t), nothing{})
			test.set(request, strings.Repeat("x", test.limit.Max()))
			if _, err := d.NodePublishVolume(t.Context(), request); errors.As(err, new(*limits.ExceededError)) {
				t.Errorf("at the limit: %v", err)
			}
			test.set(request, strings.Repeat("x", test.limit.Max()+1))
			_, err := d.NodePublishVolume(t.Context(), request)
			requireExceeded(t, err, test.limit)
		})
	}
	t.Run("attributes of either vocabulary", func(t *testing.T) {
		t.Parallel()
		d, _ := newNodeServer(t, newNode(t), nothing{})
		long := "vault.hashicorp.com/" + strings.Repeat("-x", limits.AttributeKeyBytes.Max())
		_, err := d.describe(volumeContext{attributes: map[string]string{long: "", "vault.hashicorp.com/role": "app"}})
		requireExceeded(t, err, limits.AttributeKeyBytes)
	})
}

// A volume that containers could write to is refused, with the line that its pod lacks.
func TestPublishRefusesAWritableVolume(t *testing.T) {
	t.Parallel()
	d, request := newNodeServer(t, newNode(t), nothing{})
	if err := d.checkPublish(request); err != nil {
		t.Errorf("read-only: %v", err)
	}
	request.Readonly = false
	_, err := d.NodePublishVolume(t.Context(), request)
	if status.Code(toStatus(err)) != codes.InvalidArgument || !strings.Contains(err.Error(), `add "readOnly: true" beside "driver: csi.vaultmount.dev"`) {
		t.Errorf("writable: %v", err)
	}
}

func TestUnpublishAndStatsLimits(t *testing.T) {
	t.Parallel()
	d, good := newNodeServer(t, newNode(t), nothing{})
	unpublish := func(id, path string) error {
		_, err := d.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: path})
		return err
	}
	stats := func(id, path string) error {
		_, err := d.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path})
		return err
	}
	for name, call := range map[string]func(id, path string) error{"unpublish": unpublish, "stats": stats} {
		t.Run(name, func(t *testing.T) {
			for _, test := range []struct {
				limit limits.Limit
				call  func(n int) error
			}{
				{limits.NameBytes, func(n int) error { return call(strings.Repeat("x", n), good.GetTargetPath()) }},
				{limits.TargetPathBytes, func(n int) error { return call("csi-1", strings.Repeat("x", n)) }},
			} {
				if err := test.call(test.limit.Max()); errors.As(err, new(*limits.ExceededError)) {
					t.Errorf("at the limit: %v", err)
				}
				requireExceeded(t, test.call(test.limit.Max()+1), test.limit)
			}
		})
	}
}

// The values of the volume's Secret have limits as well: the driver keeps them.
func TestSecretLimits(t *testing.T) {
	t.Parallel()
	good := map[string]string{"role": "app", "template/a": "x"}
	appRole := map[string]string{"auth-type": "approle", "role-id": "key", "template/a": "x", "role": ""}
	for _, test := range []struct {
		name       string
		limit      limits.Limit
		attributes map[string]string
	}{
		{"ca-cert", limits.CABundleBytes, map[string]string{"ca-cert": "key"}},
		{"client-cert", limits.CABundleBytes, map[string]string{"client-cert": "key", "client-key": "other"}},
		{"client-key", limits.CABundleBytes, map[string]string{"client-cert": "other", "client-key": "key"}},
		{"role-id", limits.CredentialBytes, appRole},
		{"secret-id", limits.CredentialBytes, map[string]string{"auth-type": "approle", "role-id": "other", "secret-id": "key", "role": ""}},
		{"template-key", limits.TemplateBytes, map[string]string{"template-key/b": "key"}},
		{"all templates", limits.VolumeTemplateBytes, map[string]string{
			"template-key/b": "third", "template-key/c": "third", "template-key/d": "rest", "template/a": "", "secret/a": "kv/a",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			attributes := maps.Clone(good)
			maps.Copy(attributes, test.attributes)
			maps.DeleteFunc(attributes, func(_, value string) bool { return value == "" })
			spec, err := volume.Parse(attributes)
			must(t, err)
			d, request := newNodeServer(t, newNode(t), nothing{})
			ask := func(n int) error {
				request.Secrets["key"], request.Secrets["other"] = strings.Repeat("x", n), "x"
				request.Secrets["third"], request.Secrets["rest"] = strings.Repeat("x", n/3), strings.Repeat("x", n-n/3*2)
				_, err := d.providerRequest(klog.Logger{}, request, thePod(), spec, 1)
				return err
			}
			if err := ask(test.limit.Max()); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			requireExceeded(t, ask(test.limit.Max()+1), test.limit)
		})
	}
}

func requireExceeded(t *testing.T, err error, limit limits.Limit) {
	t.Helper()
	var exceeded *limits.ExceededError
	if !errors.As(err, &exceeded) || exceeded.Limit != limit || !strings.Contains(err.Error(), limit.String()) {
		t.Errorf("one above the limit: got %v, want an error that names %s", err, limit)
	}
	if got := status.Code(toStatus(err)); got != codes.InvalidArgument {
		t.Errorf("got the code %s", got)
	}
}

// Whatever a pod writes, an error has at most 400 bytes, and keeps what failed, the
// cause and the remedy.
func TestStatusIsBounded(t *testing.T) {
	t.Parallel()
	cause := fmt.Errorf("volume %q: read %s: the path is refused; grant read on it", "secrets", strings.Repeat("p", 1<<20))
	message := status.Convert(toStatus(cause)).Message()
	if len(message) > limits.ErrorBytes.Max() || !strings.HasPrefix(message, `volume "secrets": read p`) || !strings.HasSuffix(message, "p: the path is refused; grant read on it") {
		t.Errorf("%d bytes: %s", len(message), message)
	}
}
