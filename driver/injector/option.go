package injector

import (
	"slices"
	"strconv"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// readOptions reads what else annotations say of a file.
func (r *reading) readOptions(f *file) {
	r.readPerms(f)
	r.readMissingKey(f)
	r.readDelim(f, familyLeftDelim, "left-delim", "{{")
	r.readDelim(f, familyRightDelim, "right-delim", "}}")
	r.refuseCommand(f)
}

// readPerms leaves the check to the driver's own parser, which takes octal digits
// as the injector does.
func (r *reading) readPerms(f *file) {
	name := familyPerms + f.suffix
	value, present := r.values[name]
	if !present {
		return
	}
	f.attributes["perms"] = attribute{value, name}
	perms, err := strconv.ParseUint(value, 8, 32)
	if err == nil && perms&0o7000 != 0 {
		r.warn(name, "asks for a set-id or sticky bit, which no file gets, as under the injector; leave it out")
	}
	if err == nil && perms&0o002 != 0 {
		r.warn(name, "lets every user write; the mount is read-only, write for example \"0640\"")
	}
}

func (r *reading) readMissingKey(f *file) {
	name := familyMissingKey + f.suffix
	value := r.values[name]
	refuse, err := parseBool(value)
	if err != nil {
		r.refuseFile(f, name, "%v", err)
		return
	}
	if refuse {
		f.attributes["error-on-missing-key"] = attribute{"true", name}
	}
}

// readDelim refuses delimiters without a template: the injector writes the
// built-in one with braces all the same, and its text ends up in the file.
func (r *reading) readDelim(f *file, family, verb, standard string) {
	name := family + f.suffix
	value, present := r.values[name]
	_, inKey := f.attributes[verbTemplateKey]
	hasTemplate := inKey || f.attributes[verbTemplate].origin == familyTemplate+f.suffix
	switch {
	case !present:
	case value == "":
		r.warn(name, "is empty, so the delimiter is %s; remove it", standard)
	case hasTemplate:
		f.attributes[verb] = attribute{value, name}
	case value != standard && !f.refused:
		r.refuseFile(f, name, "the built-in template has its own delimiters; remove it or write %s%s", familyTemplate, f.suffix)
	}
}

// refuseCommand: a command of the pod must not run in a driver on the node.
func (r *reading) refuseCommand(f *file) {
	name := familyCommand + f.suffix
	value, present := r.values[name]
	if !present {
		return
	}
	switch {
	case strings.TrimSpace(value) == "":
		r.warn(name, "is blank and runs nothing; remove it")
	case strings.Contains(value, "chmod"):
		r.refuseFile(f, name, "the driver runs no commands; write the mode into %s%s", familyPerms, f.suffix)
	default:
		r.refuseFile(f, name, "the driver runs no commands; remove it, and let the application watch the file")
	}
}

// orphanFamilies belong to files that other annotations make.
func orphanFamilies() []string {
	return []string{familyPerms, familyFile, familyCommand, familyMissingKey, familyLeftDelim, familyRightDelim, familyVolumePath, familyPreserveCase}
}

// reportOrphans is for options whose X is of no file. The injector ignores them,
// which for permissions leaves a secret world-readable.
func (r *reading) reportOrphans(files []*file) {
	var suffixes []string
	known := map[string]bool{}
	for _, f := range files {
		suffixes = append(suffixes, f.suffix)
		known[f.suffix] = true
	}
	for _, name := range r.sorted {
		m := r.matches[name]
		if slices.Contains(orphanFamilies(), m.family) && !known[m.suffix] {
			r.reportOrphan(name, m, suffixes)
		}
	}
}

func (r *reading) reportOrphan(name string, m match, suffixes []string) {
	way := suggestion(func() string {
		if nearest, ok := volume.Nearest(m.suffix, suffixes); ok {
			return "did you mean " + m.family + nearest + "?"
		}
		return "remove it"
	})
	if m.family == familyPerms && !r.settings.AllowUnknownPerms {
		r.refuse(name, "no annotation asks for a file %s, so another file may be readable by all; %s", quote(m.suffix), way)
		return
	}
	r.warn(name, "no annotation asks for a file %s; %s", quote(m.suffix), way)
}
