package injector

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// What some annotations refer to stands in the pod, which the driver does not
// see. These attributes say it, beside the annotations.
const (
	keyPodUser        = "pod-run-as-user"
	keyPodGroup       = "pod-run-as-group"
	keyContainerUser  = "container-run-as-user"
	keyContainerGroup = "container-run-as-group"
	// verbTokenAudience is followed by the name of a projected volume, and by the
	// path of the token in a container if one mounts it.
	verbTokenAudience = "token-audience"
)

// facts is the pod as far as a volume's attributes tell.
type facts struct {
	pod       *corev1.Pod
	container *corev1.Container
	// tokens are those of the projected volumes, by their names.
	tokens map[string]corev1.ServiceAccountTokenProjection
}

// factsOf rebuilds the pod. Attributes of the driver's own vocabulary do not go
// with annotations: which of two roles would it be?
func (t Translator) factsOf(attributes map[string]string) (facts, error) {
	annotations, err := t.annotations(attributes)
	if err != nil {
		return facts{}, err
	}
	// The context is there, so that what is missing is the id in it.
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{},
		Containers:      []corev1.Container{{SecurityContext: &corev1.SecurityContext{}}},
	}}
	pod.Annotations = annotations
	f := facts{pod: pod, container: &pod.Spec.Containers[0], tokens: map[string]corev1.ServiceAccountTokenProjection{}}
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if strings.HasPrefix(key, t.Prefix) {
			continue
		}
		if err := f.add(key, attributes[key]); err != nil {
			return facts{}, &volume.AttributeError{Key: key, Problem: err.Error()}
		}
	}
	return f, nil
}

func (f facts) add(key, value string) error {
	if token, ok := strings.CutPrefix(key, verbTokenAudience+"/"); ok {
		return f.addToken(token, value)
	}
	ids := map[string]**int64{
		keyPodUser:        &f.pod.Spec.SecurityContext.RunAsUser,
		keyPodGroup:       &f.pod.Spec.SecurityContext.RunAsGroup,
		keyContainerUser:  &f.container.SecurityContext.RunAsUser,
		keyContainerGroup: &f.container.SecurityContext.RunAsGroup,
	}
	if field, ok := ids[key]; ok {
		id, err := strconv.ParseInt(value, 10, 64)
		*field = &id
		if err != nil || id < 0 {
			return fmt.Errorf("%s is not a numeric id", quote(value))
		}
		return nil
	}
	if key == keyMountPath {
		return checkMountPath(value)
	}
	return errors.New("does not go with the annotations beside it; remove it, or write the whole volume without annotations")
}

// addToken adds a projected volume, and its mount if the token has a path.
func (f facts) addToken(token, audience string) error {
	name, file, mounted := strings.Cut(token, "/")
	if name == "" || mounted && path.Clean("/"+file) == "/" {
		return fmt.Errorf("is not of the form %s/VOLUME or %s/VOLUME/PATH", verbTokenAudience, verbTokenAudience)
	}
	file = path.Clean("/" + file)
	projection := corev1.ServiceAccountTokenProjection{Path: path.Base(file), Audience: audience}
	known, found := f.tokens[name]
	switch {
	case !found:
		f.tokens[name] = projection
		f.pod.Spec.Volumes = append(f.pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &projection}}},
		}})
	case known != projection:
		return fmt.Errorf("says something else of the volume %s than another %s", quote(name), verbTokenAudience)
	}
	if mounted {
		f.container.VolumeMounts = append(f.container.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path.Dir(file)})
	}
	return nil
}
