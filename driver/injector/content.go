package injector

import (
	"path"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
	render "github.com/vaultmount/vaultmount/provider/template"
)

const (
	verbSecret      = "secret"
	verbTemplate    = "template"
	verbTemplateKey = "template-key"
)

// readContent chooses among the annotations that say what a file holds, as the
// injector does: the inline template, the template file, the path. It says no if
// none of them holds anything.
func (r *reading) readContent(f *file) bool {
	secret, template := r.values[familySecret+f.suffix], r.values[familyTemplate+f.suffix]
	hasSecret := strings.TrimSpace(secret) != ""
	switch {
	case r.isTwofold(f):
		f.origin = familySecret + f.suffix
		r.refuseFile(f, f.origin, "the injector takes %s%s for its template and for the template file of another file; rename this one", r.settings.Prefix, familyTemplate+f.suffix)
	// Blanks are a template beside a path, and nothing without one.
	case template != "" && (hasSecret || strings.TrimSpace(template) != ""):
		f.origin = familyTemplate + f.suffix
		f.attributes[verbTemplate] = attribute{template, f.origin}
		r.reportUnread(familyTemplateFile+f.suffix, "is not read beside "+f.origin+"; remove it")
	case r.isTwofold(&file{suffix: "file-" + f.suffix}) && !hasSecret:
		// Reported with the other file.
		return false
	case r.values[familyTemplateFile+f.suffix] != "":
		r.reportUnread(familyTemplate+f.suffix, "is empty and not used; remove it")
		r.readTemplateFile(f)
	case hasSecret:
		r.reportUnread(familyTemplate+f.suffix, "is empty, so the built-in template writes the file; remove it")
		r.reportUnread(familyTemplateFile+f.suffix, "is empty, so the built-in template writes the file; remove it")
		f.origin = familySecret + f.suffix
		r.splice(f, secret)
	default:
		r.reportUnread(familySecret+f.suffix, "is blank, so no file is written; write the path of the secret or remove it")
		r.reportUnread(familyTemplate+f.suffix, "is blank, so no file is written; write a template or remove it")
		r.reportUnread(familyTemplateFile+f.suffix, "is empty, so no file is written; remove it")
		return false
	}
	return true
}

func (r *reading) reportUnread(name, text string) {
	if _, present := r.values[name]; present {
		r.warn(name, "%s", text)
	}
}

// isTwofold finds the name that belongs to two files: template-file-x is the
// template of file-x and the template file of x.
func (r *reading) isTwofold(f *file) bool {
	_, secret := r.values[familySecret+f.suffix]
	_, template := r.values[familyTemplate+f.suffix]
	return secret && template && strings.HasPrefix(familyTemplate+f.suffix, familyTemplateFile)
}

// splice puts the path into the built-in template as the injector does, without
// escaping it. So a path may close its quotes and go on with arguments:
// pki/issue/r" "common_name=x
func (r *reading) splice(f *file, secret string) {
	special := func(c rune) bool { return c == '"' || c == '\\' || unicode.IsControl(c) }
	if !strings.ContainsFunc(secret, special) {
		f.attributes[verbSecret] = attribute{secret, f.origin}
		return
	}
	text := r.format.Text(secret)
	f.attributes[verbTemplate] = attribute{text, f.origin}
	if !r.settings.CheckTemplates {
		return
	}
	if err := render.Check(render.Template{Name: f.suffix, Text: text}); err != nil {
		r.refuseFile(f, f.origin, "the path makes an %v; write %s%s", err, familyTemplate, f.suffix)
	}
}

// readTemplateFile takes a key of agent-extra-secret, which becomes the volume's
// Secret. Other files of the agent's container are not in the pod.
func (r *reading) readTemplateFile(f *file) {
	f.origin = familyTemplateFile + f.suffix
	value := r.values[f.origin]
	extra := r.values[nameExtraSecret]
	switch {
	case limits.FilePathBytes.Check(len(value)) != nil:
		r.refuseFile(f, f.origin, "the path: %v; shorten it", limits.FilePathBytes.Check(len(value)))
	case extraSecret().holds(value) && extra == "":
		r.refuseFile(f, f.origin, "%s is a key of a Secret that no annotation names; write its name into %s", quote(value), nameExtraSecret)
	case extraSecret().holds(value) && !isSecretName(extra):
		f.refused = true // A wrong name is told by its own row.
	case extraSecret().holds(value):
		f.attributes[verbTemplateKey] = attribute{path.Base(path.Clean(value)), f.origin}
	case r.isCopied(path.Clean(value)):
		r.refuseFile(f, f.origin, "the driver reads no volume of the pod; write the template into %s%s or a key of %s", familyTemplate, f.suffix, nameExtraSecret)
	default:
		r.refuseFile(f, f.origin, "template file %s is inside the injector's agent image/volume; use %s%s", quote(value), familyTemplate, f.suffix)
	}
}

// copiedPaths are where the agent would see a ConfigMap, a Secret or a projected
// volume of the pod, through agent-copy-volume-mounts.
func (r *reading) copiedPaths() map[string]bool {
	paths := map[string]bool{}
	for _, container := range r.pod.Spec.Containers {
		if container.Name != r.values["agent-copy-volume-mounts"] {
			continue
		}
		for _, mount := range container.VolumeMounts {
			source := r.podVolumes[mount.Name]
			if source != nil && (source.ConfigMap != nil || source.Secret != nil || source.Projected != nil) {
				paths[path.Clean(mount.MountPath)] = true
			}
		}
	}
	return paths
}

// isCopied takes a clean path.
func (r *reading) isCopied(file string) bool {
	for directory := range directories(file) {
		if r.copied[directory] {
			return true
		}
	}
	return false
}

// defaultTemplate is the pod's choice of a built-in template.
func (r *reading) defaultTemplate() volume.Format {
	value, present := r.values[nameDefaultTemplate]
	if !present {
		return r.settings.DefaultTemplate
	}
	format := volume.Format(strings.ToLower(value))
	if format != volume.Map && format != volume.JSON {
		r.refuse(nameDefaultTemplate, "invalid default template type: %s; write %q or %q", limits.Truncate(value, 40), volume.Map, volume.JSON)
		return r.settings.DefaultTemplate
	}
	return format
}
