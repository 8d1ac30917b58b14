package annotation

import (
	"path"
	"regexp"
	"slices"

	"github.com/vaultmount/vaultmount/provider/render"
)

// secretFiles are the keys of Secrets that a file's template reads by the
// function file, as paths of the agent. Where templates are not to be parsed, it
// goes by what a call looks like, as the admission policy does.
func (r *reading) secretFiles(f *file) []string {
	text := f.attributes[verbTemplate].value
	if !r.settings.UncheckedTemplates {
		return render.SecretFiles(render.Template{Text: text, LeftDelim: f.attributes["left-delim"].value, RightDelim: f.attributes["right-delim"].value})
	}
	call := regexp.MustCompile("file\\s+[\"`](/[^\"`]*)[\"`]|[\"`](/[^\"`]*)[\"`]\\s*[|]\\s*file")
	var found []string
	for _, match := range call.FindAllStringSubmatch(text, -1) {
		found = append(found, match[1]+match[2])
	}
	return found
}

func (r *reading) reads(f *file, source secretSource) bool {
	return slices.ContainsFunc(r.secretFiles(f), source.holds)
}

// isRead says whether a template reads a key of the Secret.
func (r *reading) isRead(files []*file, source secretSource) bool {
	return slices.ContainsFunc(files, func(f *file) bool { return r.reads(f, source) })
}

// refuseUnnamed is for templates that read a Secret which no annotation names.
func (r *reading) refuseUnnamed(files []*file) {
	for _, f := range files {
		for _, name := range r.secretFiles(f) {
			for _, source := range []secretSource{tlsSecret(), extraSecret()} {
				if source.holds(name) && r.values[source.annotation] == "" {
					r.refuseFile(f, f.origin, "the template reads the key %s of a Secret that no annotation names; write its name into %s%s", quote(path.Base(name)), r.settings.Prefix, source.annotation)
				}
			}
		}
	}
}
