package injector

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// readSecretFiles finds the keys of Secrets that templates read by the function
// file, as paths of the agent. It goes by what a call looks like, as the admission
// policy does, and parses no template: the text is a tenant's.
func readSecretFiles(files []*file) {
	call := regexp.MustCompile("file\\s+[\"`](/[^\"`]*)[\"`]|[\"`](/[^\"`]*)[\"`]\\s*[|]\\s*file")
	for _, f := range files {
		text := f.attributes[verbTemplate].value
		if !strings.Contains(text, "file") {
			continue
		}
		for _, match := range call.FindAllStringSubmatch(text, -1) {
			f.secretFiles = append(f.secretFiles, match[1]+match[2])
		}
	}
}

func (f *file) reads(source secretSource) bool {
	return slices.ContainsFunc(f.secretFiles, source.holds)
}

// isRead says whether a template reads a key of the Secret.
func isRead(files []*file, source secretSource) bool {
	return slices.ContainsFunc(files, func(f *file) bool { return f.reads(source) })
}

// refuseUnnamed is for templates that read a Secret which no annotation names.
func (r *reading) refuseUnnamed(files []*file) {
	for _, f := range files {
		for _, name := range f.secretFiles {
			for _, source := range []secretSource{tlsSecret(), extraSecret()} {
				if source.holds(name) && r.values[source.annotation] == "" {
					r.refuseFile(f, f.origin, "the template reads the key %s of a Secret that no annotation names; write its name into %s%s", quote(path.Base(name)), r.settings.Prefix, source.annotation)
				}
			}
		}
	}
}
