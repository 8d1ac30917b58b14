package compatibility

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
	"k8s.io/utils/clock"

	"github.com/vaultmount/vaultmount/driver"
	"github.com/vaultmount/vaultmount/driver/checkpoint"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/template/templatetest"
	providervault "github.com/vaultmount/vaultmount/provider/vault"
)

const (
	podNamespace = "default"
	hostIP       = "192.0.2.7"
	clusterCA    = "-----BEGIN Y-----\n"
	// fileName is that of the template's own file.
	fileName = "main"
)

// secretKeys are those of the volume's Secret, and of the agent's directories.
func secretKeys() map[string]string {
	return map[string]string{"app.pem": "-----BEGIN X-----\n", "app.conf": "a = b\n"}
}

// vaultmount is a driver without its sockets; the calls are the kubelet's.
type vaultmount struct {
	driver  *driver.NodeServer
	kubelet string
	secrets map[string]string
	context context.Context
}

func newVaultmount(t *testing.T, vault *vault) *vaultmount {
	t.Helper()
	v := &vaultmount{kubelet: t.TempDir(), secrets: secretKeys()}
	v.secrets["role-id"], v.secrets["secret-id"] = vault.appRole(t)
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(io.Discard)))
	v.context = klog.NewContext(t.Context(), logger)
	mounter, err := tmpfs.NewMounter("csi.vaultmount.dev")
	if err != nil {
		t.Fatal(err)
	}
	private, err := mounter.OpenStateMount(filepath.Join(v.kubelet, "state"), checkpoint.Size)
	if err != nil {
		t.Fatal(err)
	}
	store, err := checkpoint.Open(logger, private)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		if err := tmpfs.Remove(filepath.Join(v.kubelet, "state")); err != nil {
			t.Error(err)
		}
	})
	secrets := provider.New(provider.Config{
		Logger: logger, Clients: providervault.NewClientPool(providervault.Config{Logger: logger}), Renderer: templatetest.Renderer{},
		Store: store, Clock: clock.RealClock{},
	})
	t.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		secrets.Shutdown(stopping)
	})
	const size = 16 << 20
	v.driver = driver.NewNodeServer(driver.Config{
		Name: "csi.vaultmount.dev", NodeName: "node-1", HostIP: hostIP, KubeletRoot: v.kubelet, VolumeSize: size, MaxVolumeSize: size,
		Vault: driver.VaultConfig{Address: vault.server.Address, ReadCA: func() (string, error) { return "", nil }, ReadClusterCA: func(string) (string, error) { return clusterCA, nil }},
	})
	v.driver.Start(volumes.New(volumes.Config{Logger: logger, Mounter: mounter, Store: store, Provider: secrets, KubeletRoot: v.kubelet}))
	return v
}

// render publishes a volume with one template, reads it, and takes it away.
func (v *vaultmount) render(t *testing.T, c testCase) outcome {
	t.Helper()
	request := v.request(t, c)
	if _, err := v.driver.NodePublishVolume(v.context, request); err != nil {
		return outcome{failure: err.Error()}
	}
	made := outcome{files: readFiles(t, request.GetTargetPath())}
	if _, err := v.driver.NodeUnpublishVolume(v.context, &csi.NodeUnpublishVolumeRequest{VolumeId: request.GetVolumeId(), TargetPath: request.GetTargetPath()}); err != nil {
		t.Error(err)
	}
	return made
}

func (v *vaultmount) request(t *testing.T, c testCase) *csi.NodePublishVolumeRequest {
	t.Helper()
	parent := filepath.Join(v.kubelet, "pods", c.name, "volumes", "kubernetes.io~csi", "vault-secrets")
	if err := os.MkdirAll(parent, 0o750); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(parent, "mount")
	t.Cleanup(func() {
		if err := tmpfs.Remove(target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	attributes := map[string]string{
		"csi.storage.k8s.io/ephemeral":           "true",
		"csi.storage.k8s.io/pod.name":            c.name,
		"csi.storage.k8s.io/pod.namespace":       podNamespace,
		"csi.storage.k8s.io/pod.uid":             c.name,
		"csi.storage.k8s.io/serviceAccount.name": "app",
		"auth-type":                              "approle",
		"role-id":                                "role-id",
		"secret-id":                              "secret-id",
		"uid":                                    strconv.Itoa(agentUID),
		"gid":                                    strconv.Itoa(agentGID),
		"template/" + fileName:                   c.text,
		"error-on-missing-key/" + fileName:       strconv.FormatBool(c.errorOnMissingKey),
	}
	if c.leftDelim != "" {
		attributes["left-delim/"+fileName] = c.leftDelim
	}
	if c.rightDelim != "" {
		attributes["right-delim/"+fileName] = c.rightDelim
	}
	return &csi.NodePublishVolumeRequest{
		VolumeId:         c.name,
		TargetPath:       target,
		Readonly:         true,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		VolumeContext:    attributes,
		Secrets:          v.secrets,
	}
}
