package volume

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// contentKey is the attribute that the file's content comes from, empty as long
// as none has been parsed.
func (f File) contentKey() string {
	switch {
	case f.Secret != "":
		return verbSecret + "/" + f.Path
	case f.Template != "":
		return verbTemplate + "/" + f.Path
	case f.TemplateKey != "":
		return verbTemplateKey + "/" + f.Path
	case f.Token:
		return keyTokenFile
	}
	return ""
}

func parseContent(file *File, key, value string) (err error) {
	if value == "" {
		return errors.New("is empty; leave the attribute out if the file is not wanted")
	}
	if other := file.contentKey(); other != "" {
		return fmt.Errorf("the file has %s as well; keep one of the two", cut(other))
	}
	verb, _, _ := strings.Cut(key, "/")
	switch verb {
	case verbSecret:
		file.Secret = value
		err = checkSecretPath(value)
	case verbTemplate:
		file.Template = value
	case verbTemplateKey:
		file.TemplateKey, err = parseSecretKey(value)
	case keyTokenFile:
		file.Token = true
	}
	return err
}

func parseFileOption(file *File, verb, value string) (err error) {
	if file.Token && verb != verbPerms {
		return errors.New("belongs to a template, and token-file makes this file; leave it out")
	}
	switch verb {
	case verbPerms:
		file.Perms, err = parsePerms(value)
	case verbErrorOnMissingKey:
		file.ErrorOnMissingKey, err = parseBool(value)
	case verbLeftDelim:
		file.LeftDelim, err = parseDelim(file, value)
	case verbRightDelim:
		file.RightDelim, err = parseDelim(file, value)
	}
	return err
}

// CheckFilePath keeps a file inside the volume and clear of the names that the
// atomic swap uses: all that start with "..", as in the kubelet's own volumes.
func CheckFilePath(name string) error {
	if err := limits.FilePathBytes.Check(len(name)); err != nil {
		return fmt.Errorf("the path of the file: %w", err)
	}
	switch {
	case name == "":
		return errors.New("the file name is missing")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the file name holds a control character")
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("the file name must be relative to the volume; write %s", quote(strings.TrimLeft(name, "/")))
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, "..") {
			return errors.New(`no part of a file name may start with ".."`)
		}
		if err := limits.FileNameBytes.Check(len(part)); err != nil {
			return fmt.Errorf("a part of the path of the file: %w", err)
		}
	}
	if err := limits.DirectoryDepth.Check(strings.Count(name, "/")); err != nil {
		return fmt.Errorf("the path of the file: %w", err)
	}
	if clean := path.Clean(name); clean != name || clean == "." {
		return errors.New(`the file name has an empty or "." part; write the path in its shortest form`)
	}
	return nil
}

func parseDelim(file *File, value string) (string, error) {
	if file.Secret != "" {
		return "", errors.New("the file has a secret/ attribute, and its built-in template has delimiters of its own; leave this out or write a template/ instead")
	}
	if value == "" || strings.ContainsFunc(value, isSpaceOrControl) {
		return "", errors.New("a delimiter is not empty and holds no white space; leave it out for {{ or }}")
	}
	return value, nil
}
