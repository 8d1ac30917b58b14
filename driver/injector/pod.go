package injector

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// DecodePod reads a pod, or the template of one, from JSON as the API server does:
// "Annotations" is not "annotations". It reads only the fields that a translation
// looks at or changes. To decode all of a hostile pod is expensive: the types of the
// API take 400 bytes for the three of "{},", and a quantity like 1e-10000000 takes
// seconds.
func DecodePod(text []byte) (*corev1.Pod, error) {
	var p pod
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &p); err != nil {
		return nil, err
	}
	if err := limits.PodItems.Check(len(p.Spec.Volumes) + len(p.Spec.InitContainers) + len(p.Spec.Containers)); err != nil {
		return nil, err
	}
	return p.typed(), nil
}

type pod struct {
	Metadata podMetadata `json:"metadata"`
	Spec     podSpec     `json:"spec"`
	Status   podStatus   `json:"status"`
}

// The types have names because errors of the JSON library show them.
type podMetadata struct {
	Name         string            `json:"name"`
	GenerateName string            `json:"generateName"`
	Namespace    string            `json:"namespace"`
	Annotations  map[string]string `json:"annotations"`
}

type podSpec struct {
	Volumes               []podVolume   `json:"volumes"`
	InitContainers        []container   `json:"initContainers"`
	Containers            []container   `json:"containers"`
	SecurityContext       *ids          `json:"securityContext"`
	ShareProcessNamespace *bool         `json:"shareProcessNamespace"`
	OS                    *corev1.PodOS `json:"os"`
}

type podStatus struct {
	Phase corev1.PodPhase `json:"phase"`
}

type podVolume struct {
	Name      string                  `json:"name"`
	CSI       *corev1.CSIVolumeSource `json:"csi"`
	EmptyDir  *struct{}               `json:"emptyDir"`
	ConfigMap *struct{}               `json:"configMap"`
	Secret    *struct{}               `json:"secret"`
	Projected *struct {
		Sources []struct {
			ServiceAccountToken *corev1.ServiceAccountTokenProjection `json:"serviceAccountToken"`
		} `json:"sources"`
	} `json:"projected"`
}

type container struct {
	Name            string               `json:"name"`
	VolumeMounts    []corev1.VolumeMount `json:"volumeMounts"`
	SecurityContext *ids                 `json:"securityContext"`
}

type ids struct {
	RunAsUser  *int64 `json:"runAsUser"`
	RunAsGroup *int64 `json:"runAsGroup"`
}

func (p *pod) typed() *corev1.Pod {
	typed := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: p.Metadata.Name, GenerateName: p.Metadata.GenerateName, Namespace: p.Metadata.Namespace, Annotations: p.Metadata.Annotations,
	}}
	typed.Status.Phase = p.Status.Phase
	for _, v := range p.Spec.Volumes {
		typed.Spec.Volumes = append(typed.Spec.Volumes, v.typed())
	}
	typed.Spec.InitContainers = typedContainers(p.Spec.InitContainers)
	typed.Spec.Containers = typedContainers(p.Spec.Containers)
	if context := p.Spec.SecurityContext; context != nil {
		typed.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: context.RunAsUser, RunAsGroup: context.RunAsGroup}
	}
	typed.Spec.ShareProcessNamespace, typed.Spec.OS = p.Spec.ShareProcessNamespace, p.Spec.OS
	return typed
}

func (v podVolume) typed() corev1.Volume {
	typed := corev1.Volume{Name: v.Name}
	typed.CSI = v.CSI
	if v.EmptyDir != nil {
		typed.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if v.ConfigMap != nil {
		typed.ConfigMap = &corev1.ConfigMapVolumeSource{}
	}
	if v.Secret != nil {
		typed.Secret = &corev1.SecretVolumeSource{}
	}
	if v.Projected != nil {
		typed.Projected = &corev1.ProjectedVolumeSource{}
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken != nil {
				typed.Projected.Sources = append(typed.Projected.Sources, corev1.VolumeProjection{ServiceAccountToken: source.ServiceAccountToken})
			}
		}
	}
	return typed
}

func typedContainers(containers []container) []corev1.Container {
	var typed []corev1.Container
	for _, c := range containers {
		t := corev1.Container{Name: c.Name, VolumeMounts: c.VolumeMounts}
		if c.SecurityContext != nil {
			t.SecurityContext = &corev1.SecurityContext{RunAsUser: c.SecurityContext.RunAsUser, RunAsGroup: c.SecurityContext.RunAsGroup}
		}
		typed = append(typed, t)
	}
	return typed
}
