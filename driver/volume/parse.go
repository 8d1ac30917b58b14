package volume

import (
	"maps"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// Parse checks a volume's attributes and returns what they ask for. The error,
// if any, is an *AttributeError about the first wrong attribute in the order of
// their names. The caller takes the kubelet's own csi.storage.k8s.io/ keys out
// first.
func Parse(attributes map[string]string) (Spec, error) {
	p := parser{
		attributes:  attributes,
		spec:        newSpec(),
		files:       map[string]*File{},
		directories: map[string]bool{},
	}
	for _, parse := range []func() error{p.checkSize, p.parseFiles, p.parseRest, p.checkComplete} {
		if err := parse(); err != nil {
			return Spec{}, err
		}
	}
	return p.spec, nil
}

func newSpec() Spec {
	return Spec{
		Auth:            Auth{Type: Kubernetes},
		Server:          Server{MaxRetries: driversChoice},
		DefaultTemplate: Map,
		Owner:           Owner{UID: -1, GID: -1},
		Lifecycle:       Lifecycle{Refresh: true},
	}
}

type parser struct {
	attributes  map[string]string
	spec        Spec
	files       map[string]*File
	directories map[string]bool
}

func (p *parser) keys() []string {
	return slices.Sorted(maps.Keys(p.attributes))
}

// parseFiles finds the files first, so that parseRest can tell an option of a
// file from an option that belongs to none.
func (p *parser) parseFiles() error {
	for _, key := range p.keys() {
		path, ok := p.madeBy(key)
		if !ok {
			continue
		}
		if err := blame(key, CheckFilePath(path)); err != nil {
			return err
		}
		if err := p.countDirectories(path); err != nil {
			return blame(key, err)
		}
		file := p.files[path]
		if file == nil {
			file = &File{Path: path, Perms: DefaultPerms}
			p.files[path] = file
			if err := limits.Files.Check(len(p.files)); err != nil {
				return blame(key, err)
			}
		}
		if err := blame(key, parseContent(file, key, p.attributes[key])); err != nil {
			return err
		}
	}
	return nil
}

// madeBy returns the file whose content an attribute is.
func (p *parser) madeBy(key string) (path string, ok bool) {
	if key == keyTokenFile {
		return p.attributes[key], true
	}
	verb, path, isFile := strings.Cut(key, "/")
	return path, isFile && slices.Contains([]string{verbSecret, verbTemplate, verbTemplateKey}, verb)
}

func (p *parser) parseRest() error {
	for _, key := range p.keys() {
		if err := blame(key, p.parseKey(key, p.attributes[key])); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) parseKey(key, value string) error {
	verb, path, isFile := strings.Cut(key, "/")
	if !isFile {
		return p.parseVolumeKey(key, value)
	}
	if !slices.Contains(fileVerbs(), verb) {
		return unknown(key)
	}
	file, exists := p.files[path]
	if !exists {
		return p.orphan(key, path)
	}
	return parseFileOption(file, verb, value)
}

func (p *parser) parseVolumeKey(key, value string) (err error) {
	switch key {
	case keyDefaultTemplate:
		p.spec.DefaultTemplate, err = parseFormat(value)
	case keyUID:
		p.spec.Owner.UID, err = parseID(value)
	case keyGID:
		p.spec.Owner.GID, err = parseID(value)
	case keySize:
		p.spec.Size, err = parseSize(value)
	case keyTokenFile:
		// Parsed with the files.
	case keyMountPath:
		p.spec.MountPath, err = parseMountPath(value)
	default:
		parse := p.connectionKeys()[key]
		if parse == nil {
			parse = p.lifecycleKeys()[key]
		}
		if parse == nil {
			return unknown(key)
		}
		err = parse(value)
	}
	return err
}

// checkComplete looks at what no single attribute shows.
func (p *parser) checkComplete() error {
	if err := p.checkAuth(); err != nil {
		return err
	}
	if err := p.checkServer(); err != nil {
		return err
	}
	if len(p.files) == 0 {
		return wrong(verbSecret+"/<file>", "is missing, and so is template/<file>; a volume needs at least one file")
	}
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		if above := p.fileAbove(path); above != nil {
			return wrong(p.files[path].contentKey(), "needs %s to be a directory, but %s makes it a file; rename one of them", quote(above.Path), quote(above.contentKey()))
		}
		p.spec.Files = append(p.spec.Files, *p.files[path])
	}
	return nil
}

// fileAbove returns the file that stands where path needs a directory.
func (p *parser) fileAbove(path string) *File {
	for i := range path {
		if path[i] == '/' && p.files[path[:i]] != nil {
			return p.files[path[:i]]
		}
	}
	return nil
}
