package annotation

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/render"
)

// spec lets the driver's own parser judge, so that what it would refuse when the
// pod starts is refused here, by the annotation's name. Files that it refuses
// are left out and reported, all of them; without an attribute that it refuses
// there is no volume.
func (r *reading) spec(mount string, common map[string]attribute, files []*file) (Volume, bool) {
	common = maps.Clone(common)
	complete := true
	for len(files) > 0 {
		attributes := maps.Clone(common)
		for _, f := range files {
			maps.Copy(attributes, f.attributesIn(mount))
		}
		spec, err := r.parse(attributes)
		if err == nil {
			return Volume{MountPath: mount, Spec: spec, Origins: r.origins(attributes)}, complete
		}
		problem := &volume.AttributeError{Problem: err.Error()}
		errors.As(err, &problem)
		wrong, present := attributes[problem.Key]
		if !present {
			// What is missing may have been refused a moment ago.
			if complete {
				r.refuse(nameInject, "the volume lacks %s, which %s", problem.Key, problem.Problem)
			}
			return Volume{}, false
		}
		r.refuse(wrong.origin, "%s", problem.Problem)
		if _, ofVolume := common[problem.Key]; ofVolume {
			delete(common, problem.Key)
			complete = false
			continue
		}
		files = slices.DeleteFunc(files, func(f *file) bool {
			_, isAbout := f.attributesIn(mount)[problem.Key]
			return isAbout
		})
	}
	return Volume{}, false
}

// attributesIn are by the names that they have in the volume at mount.
func (f *file) attributesIn(mount string) map[string]attribute {
	attributes := map[string]attribute{}
	name := strings.TrimPrefix(f.destination, mount+"/")
	for verb, a := range f.attributes {
		attributes[verb+"/"+name] = a
	}
	if f.token {
		attributes["token-file"] = attribute{name, f.origin}
	}
	return attributes
}

func (r *reading) origins(attributes map[string]attribute) map[string]string {
	origins := map[string]string{}
	for key, a := range attributes {
		origins[key] = r.settings.Prefix + a.origin
	}
	return origins
}

func (r *reading) parse(attributes map[string]attribute) (volume.Spec, error) {
	values := map[string]string{}
	for key, a := range attributes {
		values[key] = a.value
	}
	spec, err := volume.Parse(values)
	if err != nil || r.settings.UncheckedTemplates {
		return spec, err
	}
	return spec, checkTemplates(spec)
}

// checkTemplates finds what the driver would refuse when the pod starts. Under the
// injector a bad template makes the agent end over and over.
func checkTemplates(spec volume.Spec) error {
	for _, f := range spec.Files {
		if spec.Text(f) == "" {
			continue // what is in no attribute
		}
		verb := verbTemplate
		if f.Secret != "" {
			verb = verbSecret
		}
		err := render.Check(render.Template{Name: f.Path, Text: spec.Text(f), LeftDelim: f.LeftDelim, RightDelim: f.RightDelim, Pod: render.Pod{MountPath: spec.MountPath}})
		if err != nil {
			return &volume.AttributeError{Key: verb + "/" + f.Path, Problem: err.Error()}
		}
	}
	return nil
}
