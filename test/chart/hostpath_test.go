package chart

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// A driver that is taken over must not have the kubelet's certificates and the
// sockets of other plugins. So it sees three directories of the kubelet, and no more.
func TestDriverSeesItsOwnPartOfTheKubeletsDirectory(t *testing.T) {
	for _, test := range []struct{ name, set, root, driver string }{
		{name: "default", set: "driver.verbosity=2", root: "/var/lib/kubelet", driver: "csi.vaultmount.dev"},
		{name: "another root and name", set: "driver.kubeletRoot=/data/kubelet,driver.name=csi.example.com", root: "/data/kubelet", driver: "csi.example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := object[appsv1.DaemonSet](t, mustTemplate(t, newest, address, "--set="+test.set), "DaemonSet", "vaultmount").Spec.Template.Spec
			want := []string{
				test.root + "/pods Bidirectional",
				test.root + "/plugins/" + test.driver + " Bidirectional",
				test.root + "/plugins_registry None",
			}
			if got := hostPaths(t, pod); !slices.Equal(got, want) {
				t.Errorf("of the host the driver sees %q, want %q", got, want)
			}
		})
	}
}

// hostPaths are the mounts of the host's directories, with their propagation. Each
// has the path that it has on the host: what the kubelet says goes for both.
func hostPaths(t *testing.T, pod corev1.PodSpec) []string {
	t.Helper()
	var found []string
	for _, volume := range pod.Volumes {
		if volume.HostPath == nil {
			continue
		}
		for _, mount := range pod.Containers[0].VolumeMounts {
			if mount.Name != volume.Name {
				continue
			}
			if mount.MountPath != volume.HostPath.Path {
				t.Errorf("%s of the host is mounted at %s", volume.HostPath.Path, mount.MountPath)
			}
			propagation := corev1.MountPropagationNone
			if mount.MountPropagation != nil {
				propagation = *mount.MountPropagation
			}
			found = append(found, fmt.Sprintf("%s %s", mount.MountPath, propagation))
		}
	}
	return found
}

// What tenants make the driver and the webhook do is bounded in CPU as well.
func TestContainersHaveCPULimits(t *testing.T) {
	rendered := mustTemplate(t, newest, address, "--set=webhook.enabled=true")
	webhook := object[appsv1.Deployment](t, rendered, "Deployment", "vaultmount-webhook").Spec.Template.Spec.Containers[0]
	for name, container := range map[string]corev1.Container{"driver": driver(t, rendered), "webhook": webhook} {
		if container.Resources.Limits.Cpu().IsZero() {
			t.Errorf("the %s has no CPU limit", name)
		}
	}
}
