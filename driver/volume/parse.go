package volume

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// AttributeError is about one attribute. It shows no template, and of another value at most
// the start.
type AttributeError struct {
	// Key is the attribute as the user wrote it.
	Key string
	// Problem is what is wrong and what to write instead.
	Problem string
	// Err is the cause, or nil. Its text is part of Problem.
	Err error
}

// An error has at most 400 bytes, and the problem comes after the key.
const (
	maxKeyBytes   = 96
	maxValueBytes = 48
)

// Error implements error.
func (e *AttributeError) Error() string {
	return fmt.Sprintf("volume attribute %q: %s", limits.Truncate(e.Key, maxKeyBytes), e.Problem)
}

// Unwrap returns the cause.
func (e *AttributeError) Unwrap() error { return e.Err }

func invalid(key, format string, arguments ...any) error {
	return &AttributeError{Key: key, Problem: fmt.Sprintf(format, arguments...)}
}

// withKey makes an AttributeError of an error, unless it is one.
func withKey(key string, err error) error {
	var already *AttributeError
	if err == nil || errors.As(err, &already) {
		return err
	}
	return &AttributeError{Key: key, Problem: err.Error(), Err: err}
}

func quote(value string) string { return fmt.Sprintf("%q", truncate(value)) }

func truncate(value string) string { return limits.Truncate(value, maxValueBytes) }

// Nearest returns the candidate with the fewest edits, at most two, from word, the first of
// several. The edit distance takes quadratic time, so word and candidates have at most
// limits.SuggestionBytes, and only the first limits.SuggestionCandidates count.
func Nearest(word string, candidates []string) (nearest string, ok bool) {
	if word == "" || limits.SuggestionBytes.Check(len(word)) != nil {
		return "", false
	}
	fewest := 3
	for _, candidate := range candidates[:min(len(candidates), limits.SuggestionCandidates.Max())] {
		if limits.SuggestionBytes.Check(len(candidate)) != nil {
			continue
		}
		if edits := levenshtein.ComputeDistance(word, candidate); edits < fewest {
			nearest, fewest, ok = candidate, edits, true
		}
	}
	return nearest, ok
}

// didYouMean is the end of an error about a word that is not known. Only the first errors have
// one, since each costs time.
func (p *parser) didYouMean(word string, candidates func() []string, suffix string) string {
	if len(p.problems) >= limits.Diagnostics.Max() {
		return ""
	}
	nearest, ok := Nearest(word, candidates())
	if !ok {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", quote(nearest+suffix))
}

// CheckSize checks the number of attributes, and the length of each key and value, for any
// vocabulary. Call it before anything else reads attributes. The error is an *AttributeError
// that wraps a *limits.ExceededError.
func CheckSize(attributes map[string]string) error {
	if err := limits.Attributes.Check(len(attributes)); err != nil {
		return withKey("volumeAttributes", err)
	}
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if err := cmp.Or(limits.AttributeKeyBytes.Check(len(key)), limits.TemplateBytes.Check(len(attributes[key]))); err != nil {
			return withKey(key, err)
		}
	}
	return nil
}

// Parse checks the attributes of a volume and returns them as a Spec. The error is an
// *AttributeError about the first wrong attribute in the order of keys. The caller removes the
// kubelet's keys, which start with csi.storage.k8s.io/, first.
func Parse(values map[string]string) (Spec, error) {
	spec, problems := ParseAll(values)
	if len(problems) > 0 {
		return Spec{}, problems[0]
	}
	return spec, nil
}

// ParseAll is Parse that does not end at an error. It leaves out wrong attributes, and files
// with a wrong attribute, and returns an error for each.
func ParseAll(values map[string]string) (Spec, []*AttributeError) {
	p := parser{values: values, files: map[string]*File{}, directories: map[string]bool{}, rejected: map[string]bool{}, spec: Spec{
		Auth: Auth{Type: Kubernetes}, Server: Server{MaxRetries: -1}, DefaultTemplate: Map,
		Owner: Owner{UID: -1, GID: -1}, Lifecycle: Lifecycle{Refresh: true},
	}}
	p.volumeRows, p.fileRows = byKey(p.spec.attributes()), byKey(new(File).attributes())
	if p.report("volumeAttributes", limits.Attributes.Check(len(values))) {
		return Spec{}, p.problems
	}
	p.keys = slices.Sorted(maps.Keys(values))
	p.checkSizes()
	p.checkTemplates()
	p.parseFiles()
	p.parseRest()
	p.report("", p.checkAuth())
	p.report("", p.checkServer())
	p.finishFiles()
	return p.spec, p.problems
}

func byKey(rows []attribute) map[string]attribute {
	table := map[string]attribute{}
	for _, row := range rows {
		table[row.key] = row
	}
	return table
}

type parser struct {
	values      map[string]string
	keys        []string // sorted
	volumeRows  map[string]attribute
	fileRows    map[string]attribute // set changes no file of the volume
	spec        Spec
	files       map[string]*File
	directories map[string]bool
	rejected    map[string]bool // the paths of files with a wrong attribute
	problems    []*AttributeError
}

// report keeps an error, about the key unless it names another one. Without a key, it is about
// something missing, maybe because its value is wrong.
func (p *parser) report(key string, err error) bool {
	var problem *AttributeError
	if !errors.As(withKey(key, err), &problem) {
		return false
	}
	isKnown := func(known *AttributeError) bool { return known.Key == problem.Key }
	if key == "" && slices.ContainsFunc(p.problems, isKnown) {
		return true
	}
	p.problems = append(p.problems, problem)
	if path, ok := p.pathOf(problem.Key); ok {
		p.rejected[path] = true
	}
	return true
}

// pathOf is the path of the file that an attribute belongs to.
func (p *parser) pathOf(key string) (path string, ok bool) {
	if key == keyTokenFile {
		return p.values[key], true
	}
	_, path, ok = strings.Cut(key, "/")
	return path, ok
}

// checkSizes removes what is too long, before anything else reads it.
func (p *parser) checkSizes() {
	p.keys = slices.DeleteFunc(p.keys, func(key string) bool {
		return p.report(key, cmp.Or(limits.AttributeKeyBytes.Check(len(key)), p.limitOf(key).Check(len(p.values[key]))))
	})
}

func (p *parser) limitOf(key string) limits.Limit {
	if row, ok := p.volumeRows[key]; ok {
		return row.limit
	}
	fileKey, _, _ := strings.Cut(key, "/")
	if row, ok := p.fileRows[fileKey]; ok {
		return row.limit
	}
	return limits.NameBytes
}

// set parses the value of a key and stores it.
func (p *parser) set(row attribute, key string) error {
	err := row.set(p.values[key])
	var number *strconv.NumError
	if errors.Is(err, errMismatch) || errors.As(err, &number) {
		return fmt.Errorf("%s is not %s", quote(p.values[key]), row.text)
	}
	return err
}

func (p *parser) checkTemplates() {
	total := 0
	for _, key := range p.keys {
		if !strings.HasPrefix(key, fileTemplate+"/") {
			continue
		}
		total += len(p.values[key])
		if err := limits.VolumeTemplateBytes.Check(total); err != nil {
			p.report(key, fmt.Errorf("with the templates before it, %w", err))
			total -= len(p.values[key])
		}
	}
}

// parseFiles makes the files before parseRest, which rejects the option of a file that does
// not exist.
func (p *parser) parseFiles() {
	for _, key := range p.keys {
		fileKey, _, isFile := strings.Cut(key, "/")
		path, _ := p.pathOf(key)
		hasContent := isFile && (fileKey == fileSecret || fileKey == fileTemplate || fileKey == fileTemplateKey)
		if (hasContent || key == keyTokenFile) && !p.rejected[path] {
			p.report(key, p.makeFile(key, path))
		}
	}
}

func (p *parser) makeFile(key, path string) error {
	if err := CheckFilePath(path); err != nil {
		return err
	}
	if p.values[key] == "" {
		return errors.New("is empty; leave the attribute out if the file is not wanted")
	}
	if other := p.files[path]; other != nil {
		return fmt.Errorf("the file has %s as well; keep one of the two", truncate(other.contentKey()))
	}
	for i := range path {
		if path[i] == '/' {
			p.directories[path[:i]] = true
		}
	}
	file := &File{Path: path, Perms: DefaultPerms, Token: key == keyTokenFile}
	p.files[path] = file
	if err := errors.Join(limits.Directories.Check(len(p.directories)), limits.Files.Check(len(p.files))); err != nil {
		return err
	}
	if file.Token {
		return nil
	}
	fileKey, _, _ := strings.Cut(key, "/")
	return p.set(byKey(file.attributes())[fileKey], key)
}

// contentKey is the attribute that has the content of the file.
func (f File) contentKey() string {
	switch {
	case f.Secret != "":
		return fileSecret + "/" + f.Path
	case f.Template != "":
		return fileTemplate + "/" + f.Path
	case f.TemplateKey != "":
		return fileTemplateKey + "/" + f.Path
	}
	return keyTokenFile
}

func (p *parser) parseRest() {
	for _, key := range p.keys {
		if path, isFile := p.pathOf(key); !isFile || !p.rejected[path] {
			p.report(key, p.parseKey(key))
		}
	}
}

func (p *parser) parseKey(key string) error {
	if row, ok := p.volumeRows[key]; ok {
		return p.set(row, key)
	}
	fileKey, path, isFile := strings.Cut(key, "/")
	if _, ok := p.fileRows[fileKey]; !ok || !isFile {
		return p.unknown(key)
	}
	file := p.files[path]
	isDelimiter := fileKey == fileLeftDelim || fileKey == fileRightDelim
	switch {
	case file == nil:
		files := func() []string { return slices.Sorted(maps.Keys(p.files)) }
		return fmt.Errorf("no secret/%s or template/%s makes this file%s", truncate(path), truncate(path), p.didYouMean(path, files, ""))
	case key == file.contentKey():
		return nil // makeFile has parsed it
	case file.Token && fileKey != filePerms:
		return errors.New("belongs to a template, and token-file makes this file; leave it out")
	case isDelimiter && file.Secret != "":
		return errors.New("the file has a secret/ attribute, whose built-in template has its own delimiters; leave this out or write template/")
	}
	return p.set(byKey(file.attributes())[fileKey], key)
}

// unknown rejects a key that is not in the vocabulary: with a misspelt "perms/x", a secret
// would be world-readable.
func (p *parser) unknown(key string) error {
	first, path, isFile := strings.Cut(key, "/")
	fileKeys := func() []string { return slices.Sorted(maps.Keys(p.fileRows)) }
	allKeys := func() []string { return append(slices.Sorted(maps.Keys(p.volumeRows)), fileKeys()...) }
	_, isVolumeKey := p.volumeRows[first]
	_, isFileKey := p.fileRows[key]
	switch {
	case isFileKey:
		return fmt.Errorf("lacks its file; write %s/<file>", key)
	case !isFile:
		return fmt.Errorf("is unknown%s", p.didYouMean(key, allKeys, ""))
	case isVolumeKey:
		return fmt.Errorf("is unknown; %q belongs to the whole volume and has no file", first)
	}
	return fmt.Errorf("is unknown%s", p.didYouMean(first, fileKeys, "/"+path))
}

func (p *parser) checkAuth() error {
	auth := &p.spec.Auth
	if auth.Path == "" {
		auth.Path = auth.Type.DefaultPath()
	}
	switch {
	case auth.Type != AppRole && auth.RoleID != "":
		return invalid(keyRoleID, "belongs to auth-type \"approle\", and the auth-type is %q", auth.Type)
	case auth.Type != AppRole && auth.SecretID != "":
		return invalid(keySecretID, "belongs to auth-type \"approle\", and the auth-type is %q", auth.Type)
	case auth.Type == Kubernetes && auth.Role == "":
		return invalid(keyRole, "is missing; name the Vault role to log in with")
	case auth.Type == AppRole && auth.Role != "":
		return invalid(keyRole, "does not belong to auth-type \"approle\", whose role is in the role id; leave it out")
	case auth.Type == AppRole && auth.Audience.Chosen:
		return invalid(keyAudience, "does not belong to auth-type \"approle\", which shows Vault no service-account token; leave it out")
	case auth.Type == AppRole && auth.RoleID == "":
		return invalid(keyRoleID, "is missing; name the key of the volume's Secret that holds the role id")
	case auth.MaxBackoff > 0 && auth.MinBackoff > auth.MaxBackoff:
		return invalid(keyMinBackoff, "%s is more than auth-max-backoff, %s", auth.MinBackoff, auth.MaxBackoff)
	}
	return nil
}

func (p *parser) checkServer() error {
	server := p.spec.Server
	switch {
	case server.ClientCert != "" && server.ClientKey == "":
		return invalid(keyClientKey, "is missing; a client-cert needs its key")
	case server.ClientKey != "" && server.ClientCert == "":
		return invalid(keyClientCert, "is missing; a client-key needs its certificate")
	case server.SkipVerify && server.CACert != "":
		return invalid(keySkipVerify, "contradicts ca-cert, which has no effect without verification; leave one of the two out")
	}
	return nil
}

// finishFiles rejects a file at a path that must be a directory.
func (p *parser) finishFiles() {
	if len(p.files) == 0 && len(p.rejected) == 0 {
		p.report("", invalid(fileSecret+"/<file>", "is missing, and so is template/<file>; a volume needs at least one file"))
	}
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		file := p.files[path]
		for i := range path {
			if parent := p.files[path[:i]]; path[i] == '/' && parent != nil && !p.rejected[parent.Path] {
				p.report(file.contentKey(), fmt.Errorf("needs %s to be a directory, but %s makes it a file; rename one of them",
					quote(parent.Path), quote(parent.contentKey())))
			}
		}
		if !p.rejected[path] {
			p.spec.Files = append(p.spec.Files, *file)
		}
	}
}
