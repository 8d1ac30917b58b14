package injector

import (
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// attribute is a value for the volume and the annotation to blame for it.
type attribute struct {
	value  string
	origin string
}

// file is one file that annotations with the same X ask for.
type file struct {
	suffix string // X as written
	// origin is the annotation that makes the file.
	origin string
	// mount and destination are clean absolute paths in the container.
	mount, destination string
	// attributes are by verb: secret or template, and options.
	attributes map[string]attribute
	// token means that the file holds the Vault token.
	token   bool
	refused bool
	// secretFiles are the paths of the agent that its template reads.
	secretFiles []string
}

// files finds what the pod asks for. Refused ones are left out in the end, so
// that FallbackWarn never mounts a file that is not what its annotations say.
func (r *reading) files() []*file {
	var files []*file
	for _, suffix := range r.suffixes() {
		if f := r.file(suffix); f != nil {
			r.readOptions(f)
			files = append(files, f)
		}
	}
	r.reportOrphans(files)
	if token := r.tokenFile(); token != nil {
		files = append([]*file{token}, files...)
	}
	r.refuseClashes(files)
	return slices.DeleteFunc(files, func(f *file) bool { return f.refused })
}

func (r *reading) refuseFile(f *file, name, format string, arguments ...any) {
	f.refused = true
	r.refuse(name, format, arguments...)
}

// suffixes are all X that may make a file, in their own spelling: the injector
// joins annotations by it before it changes the case.
func (r *reading) suffixes() []string {
	found := map[string]bool{}
	for _, m := range r.matches {
		if m.family == familySecret || m.family == familyTemplate || m.family == familyTemplateFile {
			found[m.suffix] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// file makes the file for one X, or nil if its annotations come to nothing.
func (r *reading) file(suffix string) *file {
	f := &file{suffix: suffix, attributes: map[string]attribute{}}
	if !r.readContent(f) {
		return nil
	}
	r.place(f)
	return f
}

// place sets where the file is: below the mount of its X, under its own name or
// the one of agent-inject-file-X.
func (r *reading) place(f *file) {
	f.mount = r.mountPath(f)
	name := f.suffix
	if !r.preservesCase(f.suffix) {
		name = strings.ToLower(name)
	}
	f.destination = f.mount + "/" + name
	option := familyFile + f.suffix
	value, present := r.values[option]
	if !present {
		return
	}
	if value == "" {
		r.warn(option, "is empty; the file is %s", f.destination)
		return
	}
	if err := limits.FilePathBytes.Check(len(value)); err != nil {
		r.refuseFile(f, option, "the path of the file: %v; rename it", err)
		return
	}
	f.destination = path.Join(f.mount, value)
	if !isBelow(f.destination, f.mount) {
		r.refuseFile(f, option, "%s leads out of %s, where no container would see it; write a path below it", quote(value), f.mount)
		return
	}
	if err := volume.CheckFilePath(f.destination[len(f.mount)+1:]); err != nil {
		r.refuseFile(f, option, "%v; rename it", err)
	}
}

func (r *reading) preservesCase(suffix string) bool {
	return r.isOn(familyPreserveCase+suffix, r.isOn(namePreserveCase, false))
}

// refuseClashes looks for two files at one place, and for a file where another
// needs a directory. The injector lets the order of a map decide.
func (r *reading) refuseClashes(files []*file) {
	byPlace := map[string]*file{}
	for _, f := range files {
		if other := byPlace[f.destination]; other != nil {
			other.refused = true
			r.refuseFile(f, f.origin, "writes %s, and so does %s%s; rename one of them, or set %s", f.destination, r.settings.Prefix, other.origin, wayApart(f, other))
			continue
		}
		byPlace[f.destination] = f
	}
	for _, f := range files {
		for directory := range directories(f.destination) {
			if other := byPlace[directory]; other != nil {
				other.refused = true
				r.refuseFile(f, f.origin, "needs %s to be a directory, but %s%s makes it a file; rename one of them", directory, r.settings.Prefix, other.origin)
			}
		}
	}
}

// directories yields the directories above a clean absolute path, from the inside
// out and without "/". It copies nothing: a path may have hundreds.
func directories(file string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(file, '/'); i > 0; i = strings.LastIndexByte(file[:i], '/') {
			if !yield(file[:i]) {
				return
			}
		}
	}
}

// wayApart names the annotation that gives two files different names.
func wayApart(f, other *file) string {
	if f.suffix != other.suffix && strings.EqualFold(f.suffix, other.suffix) {
		return namePreserveCase
	}
	return familyFile + f.suffix
}
