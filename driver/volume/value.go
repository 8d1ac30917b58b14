package volume

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	maxPathBytes = 1024
	maxNameBytes = 255
	maxPerms     = 0o7777
	// maxID leaves out 2^32-1, which chown(2) reads as "leave unchanged".
	maxID = 1<<32 - 2
	// minSize is one page; a tmpfs rounds up to whole ones.
	minSize = 4096
)

func parseContent(file *File, verb, value string) error {
	if value == "" {
		return errors.New("is empty; leave the attribute out if the file is not wanted")
	}
	if verb == verbTemplate {
		if file.Secret != "" {
			return fmt.Errorf("the file has secret/%s as well; keep one of the two", file.Path)
		}
		file.Template = value
		return nil
	}
	if err := checkSecretPath(value); err != nil {
		return err
	}
	file.Secret = value
	return nil
}

func parseFileOption(file *File, verb, value string) (err error) {
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

// checkFilePath keeps a file inside the volume and clear of the names that the
// atomic swap uses: all that start with "..", as in the kubelet's own volumes.
func checkFilePath(name string) error {
	switch {
	case name == "":
		return errors.New("the file name is missing after the slash")
	case len(name) > maxPathBytes:
		return fmt.Errorf("the file name is %d bytes long; %d are allowed", len(name), maxPathBytes)
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the file name holds a control character")
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("the file name must be relative to the volume; write %q", strings.TrimLeft(name, "/"))
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, "..") {
			return errors.New(`no part of a file name may start with ".."`)
		}
		if len(part) > maxNameBytes {
			return fmt.Errorf("a part of the file name is %d bytes long; %d are allowed", len(part), maxNameBytes)
		}
	}
	if clean := path.Clean(name); clean != name || clean == "." {
		return errors.New(`the file name has an empty or "." part; write the path in its shortest form`)
	}
	return nil
}

func parsePerms(value string) (uint32, error) {
	perms, err := strconv.ParseUint(value, 8, 32)
	if err != nil || perms > maxPerms {
		return 0, fmt.Errorf("%s is not an octal file mode; write for example \"0640\"", quote(value))
	}
	return uint32(perms), nil
}

func parseBool(value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s is neither \"true\" nor \"false\"", quote(value))
	}
	return b, nil
}

func parseDelim(file *File, value string) (string, error) {
	if file.Template == "" {
		return "", fmt.Errorf("secret/%s is written with a built-in template, which has its own delimiters; leave this out or write template/%s", file.Path, file.Path)
	}
	if value == "" || strings.ContainsFunc(value, isSpaceOrControl) {
		return "", errors.New("a delimiter is not empty and holds no white space; leave it out for {{ or }}")
	}
	return value, nil
}

func parseID(value string) (int64, error) {
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || id > maxID {
		return 0, fmt.Errorf("%s is not a numeric id from 0 to %d", quote(value), maxID)
	}
	return int64(id), nil
}

func parseSize(value string) (int64, error) {
	quantity, err := resource.ParseQuantity(value)
	if err != nil {
		return 0, fmt.Errorf("%s is not a quantity of bytes; write for example \"1Mi\"", quote(value))
	}
	if quantity.Value() < minSize {
		return 0, fmt.Errorf("%s is less than one page of %d bytes", quote(value), minSize)
	}
	return quantity.Value(), nil
}
