package injector

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// Apply returns the pod with the changes of a translation; without any, if its
// decision is not Translate. The pod that it is given stays as it is.
func (t Translator) Apply(pod *corev1.Pod, translation Result) *corev1.Pod {
	changed := pod.DeepCopy()
	if translation.Decision != Translate {
		return changed
	}
	t = t.withDefaults()
	for _, v := range translation.Volumes {
		putVolume(&changed.Spec, t.csi(v))
	}
	mounts := map[string][]corev1.VolumeMount{}
	for _, m := range translation.Mounts {
		mounts[m.Container] = append(mounts[m.Container], corev1.VolumeMount{Name: m.Volume, MountPath: m.MountPath, ReadOnly: true})
	}
	putMounts(changed.Spec.InitContainers, mounts)
	putMounts(changed.Spec.Containers, mounts)
	if translation.ShareProcessNamespace {
		changed.Spec.ShareProcessNamespace = new(true)
	}
	// A pod that asks has annotations. The mark keeps a second call, and an
	// injector that runs beside, from doing it again.
	changed.Annotations[t.Prefix+nameStatus] = statusDone
	return changed
}

// csi makes the volume read-only for the kubelet as well: since runc 1.2, containers
// could write to it otherwise, so the driver refuses it.
func (t Translator) csi(v Volume) corev1.Volume {
	source := &corev1.CSIVolumeSource{
		Driver:           t.Driver,
		ReadOnly:         new(true),
		VolumeAttributes: volume.Encode(v.Spec),
	}
	if v.SecretName != "" {
		source.NodePublishSecretRef = &corev1.LocalObjectReference{Name: v.SecretName}
	}
	return corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{CSI: source}}
}

func putVolume(spec *corev1.PodSpec, v corev1.Volume) {
	for i := range spec.Volumes {
		if spec.Volumes[i].Name == v.Name {
			spec.Volumes[i] = v
			return
		}
	}
	spec.Volumes = append(spec.Volumes, v)
}

func putMounts(containers []corev1.Container, mounts map[string][]corev1.VolumeMount) {
	for i := range containers {
		containers[i].VolumeMounts = append(containers[i].VolumeMounts, mounts[containers[i].Name]...)
	}
}
