package driver

import (
	"context"
	"errors"
	"slices"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/injector"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
)

// description is what a volume's attributes come to, in whichever of the two
// vocabularies they are: the driver's own, or the annotations of a pod.
type description struct {
	spec volume.Spec
	// origins are the annotations by the attributes that they stand for.
	origins  map[string]string
	warnings []injector.Diagnostic
}

func (d *NodeServer) describe(pod volumeContext) (description, error) {
	if !d.config.Annotations.IsPassthrough(pod.attributes) {
		spec, err := volume.Parse(pod.attributes)
		return description{spec: spec}, err
	}
	v, warnings, err := d.config.Annotations.TranslateVolume(pod.attributes, pod.namespace)
	return description{spec: v.Spec, origins: v.Sources, warnings: warnings}, err
}

// blame makes an error about an attribute one about the annotation that the user
// wrote. The files of a volume are known by their names.
func (v description) blame(err error) error {
	var attribute *volume.AttributeError
	if errors.As(err, &attribute) && v.origins[attribute.Key] != "" {
		return &volume.AttributeError{Key: v.origins[attribute.Key], Problem: attribute.Problem, Err: attribute.Err}
	}
	var file *provider.FileError
	if !errors.As(err, &file) || !errors.Is(err, provider.ErrTemplate) {
		return err
	}
	for _, verb := range []string{"template/", "secret/"} {
		if origin := v.origins[verb+file.Name]; origin != "" {
			return &volume.AttributeError{Key: origin, Problem: err.Error()}
		}
	}
	return err
}

// logWarnings names annotations and shows no values: those may be templates.
func (v description) logWarnings(ctx context.Context) {
	var names []string
	for _, warning := range v.warnings {
		names = append(names, warning.Annotation)
	}
	if len(names) > 0 {
		klog.FromContext(ctx).Info("Annotations without an effect, or with another one than under the injector; see driver/injector/README.md", "annotations", slices.Compact(names))
	}
}
