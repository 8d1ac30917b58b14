package injector

import (
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// isWithinLimits refuses annotations that are too many or too long. In admission
// Kubernetes has not checked them yet. The rest of the package may then go over
// them several times, but never over one for each other one.
func (r *reading) isWithinLimits() bool {
	if err := limits.Annotations.Check(len(r.values)); err != nil {
		r.refuse(nameInject, "%v; remove some", err)
		return false
	}
	total, files := 0, map[string]bool{}
	for _, name := range r.sorted {
		total += len(r.settings.Prefix) + len(name) + len(r.values[name])
		if err := limits.AnnotationNameBytes.Check(len(name)); err != nil {
			r.refuse(name, "the name: %v; shorten it, and name the file with %sX", err, familyFile)
			continue
		}
		for _, family := range []string{familySecret, familyTemplateFile, familyTemplate} {
			if suffix, ok := strings.CutPrefix(name, family); ok {
				files[suffix] = true
				break
			}
		}
	}
	if err := limits.AnnotationsBytes.Check(total); err != nil {
		r.refuse(nameInject, "all annotations together: %v; shorten or remove some", err)
	}
	if err := limits.Files.Check(len(files)); err != nil {
		r.refuse(nameInject, "%v; let a template write several files with writeToFile, or use several pods", err)
	}
	return len(r.refusals) == 0
}

// checkVolumes looks at how many volumes and mounts come of the annotations, before
// they are made.
func (r *reading) checkVolumes(volumes int) error {
	if err := limits.PodVolumes.Check(volumes); err != nil {
		return err
	}
	mounts := (len(r.pod.Spec.InitContainers) + len(r.pod.Spec.Containers)) * volumes
	for _, c := range r.pod.Spec.InitContainers {
		mounts += len(c.VolumeMounts)
	}
	for _, c := range r.pod.Spec.Containers {
		mounts += len(c.VolumeMounts)
	}
	return limits.PodMounts.Check(mounts)
}
