package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"

	"github.com/vaultmount/vaultmount/driver/kubeletplugin"
	"github.com/vaultmount/vaultmount/driver/status"
	"github.com/vaultmount/vaultmount/driver/tmpfs"
)

// DriverName is the driver's in all tests.
const DriverName = "csi.vaultmount.dev"

// The keys that the kubelet adds to a request.
const (
	KubeletPrefix = "csi.storage.k8s.io/"
	TokensKey     = KubeletPrefix + "serviceAccount.tokens"
)

// Absent leaves an attribute out that Request would set.
const Absent = "\x00"

// Kubelet is a kubelet's root directory, and what the kubelet sends.
type Kubelet struct {
	Root string
}

// NewKubelet makes what a kubelet has made before any driver starts. The root's
// name is short: paths of sockets hold 107 bytes, and t.TempDir's hold the name of
// the test.
func NewKubelet(t testing.TB) *Kubelet {
	t.Helper()
	root, err := os.MkdirTemp("", "node")
	if err != nil {
		t.Fatal(err)
	}
	k := &Kubelet{Root: root}
	t.Cleanup(func() {
		if err := tmpfs.Remove(k.StateDirectory()); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	for _, directory := range []string{"pods", "plugins_registry"} {
		if err := os.Mkdir(filepath.Join(root, directory), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// StateDirectory is where the driver keeps its records.
func (k *Kubelet) StateDirectory() string { return kubeletplugin.StateDirectory(k.Root, DriverName) }

// Endpoint is the driver's CSI socket.
func (k *Kubelet) Endpoint() string { return kubeletplugin.Endpoint(k.Root, DriverName) }

// Records are the files of the driver's state.
func (k *Kubelet) Records(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(k.StateDirectory(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Mounts are the mount points below the root, without the driver's state.
func (k *Kubelet) Mounts(t testing.TB) []string {
	t.Helper()
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(k.Root))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, mount := range found {
		if mount.Mountpoint != k.StateDirectory() {
			targets = append(targets, mount.Mountpoint)
		}
	}
	return targets
}

// Pod is a pod and one volume of it. Its UID follows from its name, which no two pods
// of a kubelet share.
type Pod struct {
	Namespace, Name, ServiceAccount, Volume string
}

func (p Pod) uid() string { return p.Name + "-uid" }

// Request is RequestFor with a pod of that name in the namespace "default", whose
// service account is Role.
func (k *Kubelet) Request(t testing.TB, issuer *Vault, pod string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	request := k.RequestFor(t, issuer, Pod{Namespace: "default", Name: pod, ServiceAccount: Role, Volume: "vault-secrets"}, attributes)
	request.VolumeId = "csi-" + pod
	return request
}

// RequestFor is what the kubelet sends for a volume of a pod, with tokens of an
// issuer. It makes the parent of the target path, as the kubelet does.
func (k *Kubelet) RequestFor(t testing.TB, issuer *Vault, pod Pod, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	parent := filepath.Join(k.Root, "pods", pod.uid(), "volumes", "kubernetes.io~csi", pod.Volume)
	if err := os.MkdirAll(parent, 0o750); err != nil {
		t.Fatal(err)
	}
	// By which the kubelet knows what it has to unpublish.
	if err := os.WriteFile(filepath.Join(parent, "vol_data.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(parent, "mount")
	t.Cleanup(func() {
		if err := tmpfs.Remove(target); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return &csi.NodePublishVolumeRequest{
		VolumeId:         "csi-" + pod.Name + "-" + pod.Volume,
		TargetPath:       target,
		Readonly:         true,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}}},
		VolumeContext:    volumeContext(pod, attributes),
		Secrets:          map[string]string{TokensKey: issuer.TokensFor(t, pod)},
	}
}

func volumeContext(pod Pod, attributes map[string]string) map[string]string {
	all := map[string]string{
		KubeletPrefix + "ephemeral":           "true",
		KubeletPrefix + "pod.name":            pod.Name,
		KubeletPrefix + "pod.namespace":       pod.Namespace,
		KubeletPrefix + "pod.uid":             pod.uid(),
		KubeletPrefix + "serviceAccount.name": pod.ServiceAccount,
		"role":                                Role,
		"auth-type":                           "jwt",
	}
	for key, value := range attributes {
		if value == Absent {
			delete(all, key)
			continue
		}
		all[key] = value
	}
	return all
}

// StatusName is a volume as "vaultmount volumes" and "vaultmount refresh" name it.
func StatusName(request *csi.NodePublishVolumeRequest) string {
	of := request.GetVolumeContext()
	return of[KubeletPrefix+"pod.namespace"] + "/" + of[KubeletPrefix+"pod.name"] + "/" + filepath.Base(filepath.Dir(request.GetTargetPath()))
}

// Refresh does what "vaultmount refresh" does for a volume, once.
func (k *Kubelet) Refresh(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	var failed error
	err := status.Client{Socket: kubeletplugin.StatusSocket(k.Root, DriverName)}.Refresh(ctx, StatusName(request), func(r status.Result) {
		if r.Error != "" {
			failed = errors.New(r.Error)
		}
	})
	return errors.Join(err, failed)
}

// Unpublish is the call that takes a volume down again.
func Unpublish(request *csi.NodePublishVolumeRequest) *csi.NodeUnpublishVolumeRequest {
	return &csi.NodeUnpublishVolumeRequest{VolumeId: request.GetVolumeId(), TargetPath: request.GetTargetPath()}
}

// VolumeFile is the path of a file in a volume.
func VolumeFile(request *csi.NodePublishVolumeRequest, name string) string {
	return filepath.Join(request.GetTargetPath(), name)
}

// RequireNothing fails the test if there is anything at a target path.
func RequireNothing(t testing.TB, target string) {
	t.Helper()
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target path is still there: %v", err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(target))
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) > 0 {
		t.Error("the target path is still mounted")
	}
}
