package injector

import (
	"cmp"
	"errors"
	"maps"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
	render "github.com/vaultmount/vaultmount/provider/template"
)

// spec lets the driver's own parser judge, so that what it would refuse when the
// pod starts is refused here, by the annotation's name. Files that it refuses
// are left out and reported; without an attribute that it refuses there is no
// volume. It parses each attribute twice, however many are wrong: each file for
// itself, and then what is left together.
func (r *reading) spec(mount string, common map[string]attribute, files []*file) (Volume, bool) {
	common, complete := r.checkCommon(common)
	if common == nil {
		return Volume{}, false
	}
	all := maps.Clone(common)
	good := 0
	for _, f := range files {
		if attributes := f.attributesIn(mount); r.checkFile(common, attributes) {
			maps.Copy(all, attributes)
			good++
		}
	}
	if good == 0 || !complete {
		return Volume{}, false
	}
	spec, err := volume.Parse(valuesOf(all))
	if err != nil {
		problem := attributeError(err)
		r.refuse(cmp.Or(all[problem.Key].origin, nameInject), "%s", problem.Problem)
		return Volume{}, false
	}
	return Volume{MountPath: mount, Spec: spec, Origins: r.origins(all)}, true
}

// checkCommon parses the attributes of the volume, beside a file that is beyond doubt,
// and returns those that are right; none if one is missing.
func (r *reading) checkCommon(common map[string]attribute) (right map[string]attribute, complete bool) {
	right, complete = maps.Clone(common), true
	for {
		values := valuesOf(right)
		values[verbSecret+"/any"] = "any"
		_, err := volume.Parse(values)
		if err == nil {
			return right, complete
		}
		problem := attributeError(err)
		wrong, present := right[problem.Key]
		if !present {
			// What is missing may have been refused a moment ago.
			if complete {
				r.refuse(nameInject, "the volume lacks %s, which %s", problem.Key, problem.Problem)
			}
			return nil, false
		}
		r.refuse(wrong.origin, "%s", problem.Problem)
		delete(right, problem.Key)
		complete = false
	}
}

// checkFile parses the attributes of one file, beside a login that is beyond doubt.
func (r *reading) checkFile(common, attributes map[string]attribute) bool {
	values := valuesOf(attributes)
	values["role"] = "any"
	for _, key := range []string{"default-template", "mount-path"} {
		if a, ok := common[key]; ok {
			values[key] = a.value
		}
	}
	spec, err := volume.Parse(values)
	if err == nil && r.settings.CheckTemplates {
		err = checkTemplates(spec)
	}
	if err != nil {
		problem := attributeError(err)
		r.refuse(cmp.Or(attributes[problem.Key].origin, nameInject), "%s", problem.Problem)
	}
	return err == nil
}

func attributeError(err error) *volume.AttributeError {
	problem := &volume.AttributeError{Problem: err.Error()}
	errors.As(err, &problem)
	return problem
}

func valuesOf(attributes map[string]attribute) map[string]string {
	values := map[string]string{}
	for key, a := range attributes {
		values[key] = a.value
	}
	return values
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
