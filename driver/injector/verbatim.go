package injector

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// keyMountPath says which of the volumes that the annotations make this one is.
const keyMountPath = "mount-path"

// IsPassthrough says whether a volume is described by annotations instead of the
// driver's own attributes.
func (t Translator) IsPassthrough(attributes map[string]string) bool {
	t = t.withDefaults()
	for key := range attributes {
		if strings.HasPrefix(key, t.Prefix) {
			return true
		}
	}
	return false
}

// TranslateVolume works out one volume from annotations that stand among its
// attributes as they stood in the pod, and from what else the attributes say of
// the pod. It is Translate for whoever sees the volume alone: a refusal is always
// one, whatever the fallback, since the pod has been admitted. The warnings are
// for the volume that is returned; the error is a *volume.AttributeError.
func (t Translator) TranslateVolume(attributes map[string]string, namespace string) (Volume, []Diagnostic, error) {
	t = t.withDefaults()
	t.Fallback = FallbackReject
	if err := volume.CheckSize(attributes); err != nil {
		return Volume{}, nil, err
	}
	facts, err := t.factsOf(attributes)
	if err != nil {
		return Volume{}, nil, err
	}
	translation := t.Translate(facts.pod, namespace)
	if err := refusalsError(translation); err != nil {
		return Volume{}, nil, err
	}
	if len(translation.Volumes) == 0 {
		return Volume{}, nil, &volume.AttributeError{Key: t.Prefix + nameInject, Problem: "no annotation asks for a file; add agent-inject-secret-FILE or agent-inject-template-FILE"}
	}
	v, err := pickVolume(translation.Volumes, attributes)
	return v, translation.Warnings, err
}

// refusalsError tells the first refusal in full: the message is an event.
func refusalsError(translation Result) error {
	if len(translation.Errors) == 0 {
		return nil
	}
	const enough = 3
	first, more := translation.Errors[0], translation.More
	var others []string
	for _, n := range translation.Errors[1:] {
		switch {
		case n.Annotation == first.Annotation || slices.Contains(others, n.Annotation):
		case len(others) < enough:
			others = append(others, n.Annotation)
		default:
			more++
		}
	}
	problem := first.Text
	if len(others) > 0 {
		problem += "; refused as well: " + strings.Join(others, ", ")
	}
	if more > 0 {
		problem += fmt.Sprintf(", and %d more", more)
	}
	return &volume.AttributeError{Key: first.Annotation, Problem: problem}
}

// pickVolume finds the volume by its mount path. Whoever wrote the attributes
// worked out the same paths; where that came to something else, the files would
// be in the wrong place.
func pickVolume(volumes []Volume, attributes map[string]string) (Volume, error) {
	var paths []string
	for _, v := range volumes {
		paths = append(paths, v.MountPath)
	}
	wanted, chosen := attributes[keyMountPath]
	if !chosen && len(volumes) == 1 {
		return volumes[0], nil
	}
	if !chosen {
		return Volume{}, &volume.AttributeError{Key: keyMountPath, Problem: fmt.Sprintf("is missing: the annotations make a volume for each of %s; name the one that this is", quoteAll(paths))}
	}
	i := slices.Index(paths, path.Clean(wanted))
	if i < 0 {
		return Volume{}, &volume.AttributeError{Key: keyMountPath, Problem: fmt.Sprintf("the annotations make no volume at %s, but at %s", quote(wanted), quoteAll(paths))}
	}
	return volumes[i], nil
}

// podsOwn are annotations that no volume can fulfil: they change the pod, and
// whoever adds the volume to it takes them out.
func podsOwn(name, value string) string {
	switch name {
	case nameContainers:
		return "is about the pod, not the volume; remove it and write volumeMounts into the containers"
	case nameShareProcesses:
		if on, err := parseBool(value); err == nil && !on {
			return ""
		}
		return "is about the pod, not the volume; remove it and write shareProcessNamespace into the pod"
	case nameInject:
		if on, err := parseBool(value); err == nil && !on {
			return "asks for nothing, and stands in a volume; remove one of the two"
		}
	}
	return ""
}

// annotations of the rebuilt pod. The volume itself asks, and the mark of the pod
// that it is in would say that there is nothing to do.
func (t Translator) annotations(attributes map[string]string) (map[string]string, error) {
	annotations := map[string]string{t.Prefix + nameInject: "true"}
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		name, ours := strings.CutPrefix(key, t.Prefix)
		if !ours || name == nameStatus {
			continue
		}
		if problem := podsOwn(name, attributes[key]); problem != "" {
			return nil, &volume.AttributeError{Key: key, Problem: problem}
		}
		annotations[key] = attributes[key]
	}
	return annotations, nil
}
