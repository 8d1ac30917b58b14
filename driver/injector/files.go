package injector

import (
	"iter"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The attributes that hold the content of a file, without the name of the file.
const (
	attrSecret      = "secret"
	attrTemplate    = "template"
	attrTemplateKey = "template-key"
)

// file is one file that annotations with the same suffix ask for.
type file struct {
	suffix string // as written
	source string // the annotation that asks for the file
	// mount and destination are clean absolute paths in the container.
	mount, destination string
	attributes         map[string]attribute // without the name of the file
	isToken, rejected  bool
	secretFiles        []string // the paths of the agent that its template reads
}

// files returns what the pod asks for, without rejected files: with FallbackWarn no
// container gets a file that differs from its annotations.
func (t *translation) files() []*file {
	// The injector joins annotations by the suffix as it is written, and changes the case
	// of names later.
	suffixes := map[string]bool{}
	for _, m := range t.rows {
		if slices.Contains([]string{familySecret, familyTemplate, familyTemplateFile}, m.family) {
			suffixes[m.suffix] = true
		}
	}
	var files []*file
	for _, suffix := range slices.Sorted(maps.Keys(suffixes)) {
		f := &file{suffix: suffix, attributes: map[string]attribute{}}
		if t.readContent(f) {
			t.place(f)
			t.readOptions(f)
			files = append(files, f)
		}
	}
	t.reportOrphans(files)
	if token := t.tokenFile(); token != nil {
		files = append([]*file{token}, files...)
	}
	t.rejectClashes(files)
	return slices.DeleteFunc(files, func(f *file) bool { return f.rejected })
}

func (t *translation) rejectFile(f *file, name, format string, arguments ...any) {
	f.rejected = true
	t.reject(name, format, arguments...)
}

// readContent chooses among the annotations for the content of a file, as the injector
// does: the inline template, the template file, the path. It returns false if none of
// them has a value.
func (t *translation) readContent(f *file) bool {
	secret, template, templateFile := familySecret+f.suffix, familyTemplate+f.suffix, familyTemplateFile+f.suffix
	isEmpty := func(name string) bool { return strings.TrimSpace(t.values[name]) == "" }
	switch {
	case t.isAmbiguous(f.suffix):
		f.source = secret
		t.rejectFile(f, secret,
			"the injector uses %s%s for its template and for the template file of another file; rename this one",
			t.settings.Prefix, template)
		return true
	// White space is a template beside a path, and nothing without one.
	case t.values[template] != "" && !(isEmpty(secret) && isEmpty(template)):
		f.source = template
		f.attributes[attrTemplate] = attribute{t.values[template], template}
	case t.isAmbiguous("file-"+f.suffix) && isEmpty(secret):
		return false // reported with the other file
	case t.values[templateFile] != "":
		f.source = templateFile
		t.readTemplateFile(f)
	case !isEmpty(secret):
		f.source = secret
		t.setBuiltinTemplate(f, t.values[secret])
	default:
		t.warnUnread(secret, "is empty, so no file is written; write the path of the secret or remove it")
	}
	// Beside another annotation a path has no effect either, but is usual.
	for _, name := range []string{template, templateFile} {
		switch {
		case name == f.source:
		case f.source == "":
			t.warnUnread(name, "is empty, so no file is written; write a template or remove it")
		default:
			t.warnUnread(name, "has no effect beside "+f.source+"; remove it")
		}
	}
	return f.source != ""
}

// isAmbiguous is true for a name that belongs to two files: template-file-x is the
// template of file-x and the template file of x.
func (t *translation) isAmbiguous(suffix string) bool {
	_, secret := t.values[familySecret+suffix]
	_, template := t.values[familyTemplate+suffix]
	return secret && template && strings.HasPrefix(familyTemplate+suffix, familyTemplateFile)
}

// setBuiltinTemplate inserts the path into the built-in template without escaping it, as
// the injector does. So a path may end its quotes and continue with arguments:
// pki/issue/r" "common_name=x
func (t *translation) setBuiltinTemplate(f *file, secret string) {
	special := func(c rune) bool { return c == '"' || c == '\\' || unicode.IsControl(c) }
	if strings.ContainsFunc(secret, special) {
		f.attributes[attrTemplate] = attribute{t.format.Text(secret), f.source}
		return
	}
	f.attributes[attrSecret] = attribute{secret, f.source}
}

// readTemplateFile accepts a key of agent-extra-secret, which becomes the Secret of the
// volume. Other files of the agent's container are not in the pod.
func (t *translation) readTemplateFile(f *file) {
	value := t.values[f.source]
	if err := limits.FilePathBytes.Check(len(value)); err != nil {
		t.rejectFile(f, f.source, "the path: %v; shorten it", err)
	} else if extraSecret().holds(value) {
		key, ok := t.secretKey(f.source, extraSecret())
		f.attributes[attrTemplateKey], f.rejected = attribute{key, f.source}, !ok
	} else {
		t.rejectFile(f, f.source,
			"vaultmount has no agent that could read the file %s; write the template into %s%s or a key of %s",
			quote(value), familyTemplate, f.suffix, nameExtraSecret)
	}
}

// place sets the destination of a file: below the mount path of its suffix, under its
// own name or that of agent-inject-file-X.
func (t *translation) place(f *file) {
	var err error
	if f.mount, err = t.mountPath(familyVolumePath+f.suffix, t.directory); err != nil {
		t.rejectFile(f, familyVolumePath+f.suffix, "%v", err)
	}
	name := f.suffix
	if !t.isOn(familyPreserveCase+f.suffix, t.isOn(namePreserveCase, false)) {
		name = strings.ToLower(name)
	}
	f.destination = f.mount + "/" + name
	option := familyFile + f.suffix
	switch value, present := t.values[option]; {
	case present && value == "":
		t.warn(option, "is empty; the file is %s", f.destination)
	case present:
		f.destination = path.Join(f.mount, value)
		if !isBelow(f.destination, f.mount) {
			t.rejectFile(f, option, "%s leads out of %s, where no container would see it; write a path below it", quote(value), f.mount)
		} else if err := volume.CheckFilePath(f.destination[len(f.mount)+1:]); err != nil {
			t.rejectFile(f, option, "%v; rename it", err)
		}
	}
}

// tokenFile is what agent-inject-token asks for, in the default volume, or nil. No other
// option of a file applies to it.
func (t *translation) tokenFile() *file {
	if !t.isOn(nameToken, false) || t.settings.ForbidToken {
		return nil
	}
	perms := map[string]attribute{"perms": {"0640", nameToken}}
	return &file{source: nameToken, mount: t.directory, destination: t.directory + "/token", attributes: perms, isToken: true}
}

// readOptions leaves the check of most values to the driver's own parser.
func (t *translation) readOptions(f *file) {
	perms := familyPerms + f.suffix
	if value, present := t.values[perms]; present {
		f.attributes["perms"] = attribute{value, perms}
		bits, err := strconv.ParseUint(value, 8, 32)
		if err == nil && bits&0o7000 != 0 {
			t.warn(perms, "asks for a set-id or sticky bit, which no file gets, as under the injector; leave it out")
		}
		if err == nil && bits&0o002 != 0 {
			t.warn(perms, "lets every user write; the mount is read-only, write for example \"0640\"")
		}
	}
	missingKey := familyMissingKey + f.suffix
	if value := t.values[missingKey]; value != "" {
		f.attributes["error-on-missing-key"] = attribute{value, missingKey}
	}
	t.readDelim(f, familyLeftDelim, "left-delim", "{{")
	t.readDelim(f, familyRightDelim, "right-delim", "}}")
	t.rejectCommand(f)
}

// readDelim rejects delimiters without a template: the injector writes the built-in one
// with braces all the same, and its text would be in the file.
func (t *translation) readDelim(f *file, family, attr, standard string) {
	name := family + f.suffix
	value, present := t.values[name]
	_, inKey := f.attributes[attrTemplateKey]
	hasTemplate := inKey || f.attributes[attrTemplate].source == familyTemplate+f.suffix
	switch {
	case !present:
	case value == "":
		t.warn(name, "is empty, so the delimiter is %s; remove it", standard)
	case hasTemplate:
		f.attributes[attr] = attribute{value, name}
	case value != standard && !f.rejected:
		t.rejectFile(f, name, "the built-in template has its own delimiters; remove it or write %s%s", familyTemplate, f.suffix)
	}
}

// rejectCommand: a command of the pod must not run in a driver on the node.
func (t *translation) rejectCommand(f *file) {
	name := familyCommand + f.suffix
	value, present := t.values[name]
	switch {
	case !present:
	case strings.TrimSpace(value) == "":
		t.warn(name, "is empty and runs nothing; remove it")
	case strings.Contains(value, "chmod"):
		t.rejectFile(f, name, "vaultmount has no agent to run commands; write the mode into %s%s", familyPerms, f.suffix)
	default:
		t.rejectFile(f, name, "vaultmount has no agent to run commands; remove it, and let the application watch the file")
	}
}

// reportOrphans is for options whose suffix has no file. The injector ignores them,
// which for permissions leaves a secret world-readable.
func (t *translation) reportOrphans(files []*file) {
	options := []string{
		familyPerms, familyFile, familyCommand, familyMissingKey,
		familyLeftDelim, familyRightDelim, familyVolumePath, familyPreserveCase,
	}
	known := map[string]bool{}
	for _, f := range files {
		known[f.suffix] = true
	}
	suffixes := slices.Sorted(maps.Keys(known))
	for _, name := range t.names {
		m := t.rows[name]
		if !slices.Contains(options, m.family) || known[m.suffix] {
			continue
		}
		hint := lazy(func() string {
			if nearest, ok := volume.Nearest(m.suffix, suffixes); ok {
				return "did you mean " + m.family + nearest + "?"
			}
			return "remove it"
		})
		if m.family == familyPerms && !t.settings.AllowUnknownPerms {
			t.reject(name, "no annotation asks for a file %s, so another file may be readable by all; %s", quote(m.suffix), hint)
			continue
		}
		t.warn(name, "no annotation asks for a file %s; %s", quote(m.suffix), hint)
	}
}

// rejectClashes finds two files at one place, and a file where another one needs a
// directory. Under the injector the order of a map decides.
func (t *translation) rejectClashes(files []*file) {
	byPlace := map[string]*file{}
	for _, f := range files {
		if other := byPlace[f.destination]; other != nil {
			other.rejected = true
			option := familyFile + f.suffix
			if f.suffix != other.suffix && strings.EqualFold(f.suffix, other.suffix) {
				option = namePreserveCase
			}
			t.rejectFile(f, f.source,
				"writes %s, and so does %s%s; rename one of them, or set %s",
				f.destination, t.settings.Prefix, other.source, option)
			continue
		}
		byPlace[f.destination] = f
	}
	for _, f := range files {
		for directory := range directories(f.destination) {
			if other := byPlace[directory]; other != nil {
				other.rejected = true
				t.rejectFile(f, f.source,
					"needs %s to be a directory, but %s%s makes it a file; rename one of them",
					directory, t.settings.Prefix, other.source)
			}
		}
	}
}

// directories yields the directories above a clean absolute path, innermost first and
// without "/". It copies nothing: a path may have hundreds.
func directories(file string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := strings.LastIndexByte(file, '/'); i > 0; i = strings.LastIndexByte(file[:i], '/') {
			if !yield(file[:i]) {
				return
			}
		}
	}
}

// isBelow compares clean paths.
func isBelow(path, directory string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(directory, "/")+"/")
}
