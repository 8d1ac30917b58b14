package injector

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// audience is that of the token that the agent would read. The driver never reads
// a token from the pod; it asks the kubelet for one with the same audience.
func (r *reading) audience() (attribute, bool) {
	if name, present := r.authConfig(tokenSetting(r.authType())); present {
		if value := r.values[name]; value != "" {
			r.reportUnread(nameTokenVolume, "is not read beside "+name+"; remove it")
			return r.audienceAt(name, value)
		}
		r.warn(name, "is empty; remove it")
	}
	value := r.values[nameTokenVolume]
	if value == "" {
		return attribute{}, false
	}
	token, err := r.tokenIn(value)
	if err != nil {
		r.refuse(nameTokenVolume, "%v", err)
		return attribute{}, false
	}
	return r.served(nameTokenVolume, token.Audience)
}

// audienceAt finds the projected token that is mounted at a path.
func (r *reading) audienceAt(name, tokenPath string) (attribute, bool) {
	if tokenPath == tokenDirectory+"/token" {
		// A jwt mount compares the audience with what its role is bound to, so the
		// driver's usual one would not do.
		if r.authType() == volume.JWT {
			return r.served(name, "")
		}
		return attribute{}, false
	}
	wanted := path.Clean(tokenPath)
	for _, container := range r.pod.Spec.Containers {
		for _, mount := range container.VolumeMounts {
			token := r.tokenOf(r.podVolumes[mount.Name])
			if token != nil && path.Join(mount.MountPath, token.Path) == wanted {
				return r.served(name, token.Audience)
			}
		}
	}
	r.refuse(name, "%s is not a projected service-account token that a container mounts; remove it for the pod's own token", quote(tokenPath))
	return attribute{}, false
}

func (r *reading) tokenIn(name string) (*corev1.ServiceAccountTokenProjection, error) {
	source := r.podVolumes[name]
	if token := r.tokenOf(source); token != nil {
		return token, nil
	}
	switch {
	case source != nil:
		return nil, fmt.Errorf("failed to find tokenPath for projected volume %s", quote(name))
	case r.isMounted(name):
		return nil, fmt.Errorf("failed to find volume %s in Pod %s volumes", quote(name), quote(r.pod.Name))
	}
	return nil, fmt.Errorf("failed to find service account volume %s", quote(name))
}

// tokenOf returns the first token of a projected volume. The volume may be nil.
func (r *reading) tokenOf(v *corev1.Volume) *corev1.ServiceAccountTokenProjection {
	if v == nil || v.Projected == nil {
		return nil
	}
	for _, projection := range v.Projected.Sources {
		if token := projection.ServiceAccountToken; token != nil && token.Path != "" {
			return token
		}
	}
	return nil
}

func (r *reading) served(name, audience string) (attribute, bool) {
	if r.settings.Audiences != nil && !slices.Contains(r.settings.Audiences, audience) {
		r.refuse(name, "the token's audience %s is not in the CSIDriver's tokenRequests; use one of %q", quote(audience), r.settings.Audiences)
		return attribute{}, false
	}
	return attribute{audience, name}, true
}

func (r *reading) isMounted(name string) bool {
	return slices.ContainsFunc(r.pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name })
	})
}
