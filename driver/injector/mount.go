package injector

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// mounts puts every volume into the chosen containers and into all init
// containers, which the injector does not let a pod choose.
func (r *reading) mounts(volumes []Volume) []Mount {
	left := r.containers()
	for _, container := range r.pod.Spec.InitContainers {
		left[container.Name] = true
	}
	var mounts []Mount
	for _, container := range slices.Concat(r.pod.Spec.InitContainers, r.pod.Spec.Containers) {
		for _, v := range volumes {
			if left[container.Name] && r.isFree(container, v) {
				mounts = append(mounts, Mount{Container: container.Name, Volume: v.Name, MountPath: v.MountPath})
			}
		}
		left[container.Name] = false // Kubernetes has not checked yet that names differ
	}
	return mounts
}

// containers are those that get the volumes. The injector does not trim names, and
// passes over unknown ones: the application starts without its secrets.
func (r *reading) containers() map[string]bool {
	names, inits := containerNames(r.pod.Spec.Containers), setOf(containerNames(r.pod.Spec.InitContainers))
	known := setOf(names)
	value, present := r.values[nameContainers]
	if !present {
		return known
	}
	chosen := map[string]bool{}
	for part := range strings.SplitSeq(value, ",") {
		if len(r.refusals) == limits.Diagnostics.Max() {
			break // a value may hold a hundred thousand names
		}
		name := strings.TrimSpace(part)
		switch {
		case name == "":
		case known[name]:
			chosen[name] = true
		case inits[name]:
			r.warn(nameContainers, "the init container %s has the secrets in any case; leave it out", quote(name))
		default:
			r.refuse(nameContainers, "the pod has no container %s, which would start without its secrets; it has %s", quote(name), suggestion(func() string { return quoteAll(names) }))
		}
	}
	if len(chosen) == 0 {
		r.warn(nameContainers, "names no container, so only init containers have the secrets; remove it to have them in all")
	}
	return chosen
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

func containerNames(containers []corev1.Container) []string {
	var names []string
	for _, c := range containers {
		names = append(names, c.Name)
	}
	return names
}

// isUsable lets a pod declare an emptyDir under the injector's name, as some do to
// please a linter; it is replaced. Any other volume is the pod's own.
func (r *reading) isUsable(v Volume) bool {
	declared := r.podVolumes[v.Name]
	if declared == nil {
		return true
	}
	if declared.EmptyDir == nil {
		r.refuse(nameInject, "the pod has a volume %q of its own; rename it", v.Name)
		return false
	}
	r.warn(nameInject, "the emptyDir %q of the pod is replaced by the volume with the secrets; remove it", v.Name)
	return true
}

// isFree refuses a container that mounts something at the same place, which the
// API server would, and something below, where the runtime could not make a
// mount point, the volume being read-only. A pod may mount the volume itself.
func (r *reading) isFree(container corev1.Container, v Volume) bool {
	free := true
	for _, mount := range container.VolumeMounts {
		at := path.Clean(mount.MountPath)
		if at == v.MountPath && mount.Name == v.Name && mount.SubPath == "" && mount.SubPathExpr == "" {
			free = false
			continue
		}
		if at == v.MountPath || isBelow(at, v.MountPath) {
			r.refuse(v.pathOrigin, "the container %s mounts %s at %s, where the secrets go; choose another directory for one of them", quote(container.Name), quote(mount.Name), quote(at))
			return false
		}
	}
	return free
}
