package template

import (
	"cmp"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// writeToFile makes a file of the volume beside the template's own. The arguments are
// consul-template's: path, owner, group, permissions, optional flags, content.
func (e *execution) writeToFile(name, owner, group, perms string, rest ...string) (string, error) {
	const function = "writeToFile"
	if len(rest) == 0 {
		return "", e.fail("%s: the content is missing; pipe it in or write it last", function)
	}
	file := WrittenFile{Content: []byte(rest[len(rest)-1])}
	var wrong *argumentError
	if file.Path, wrong = e.template.Pod.relativePath(name); wrong != nil {
		return "", e.failOnArgument(function, wrong)
	}
	if file.UID, wrong = parseOwner(owner, vaultUID); wrong != nil {
		return "", e.failOnArgument(function, wrong)
	}
	if file.GID, wrong = parseOwner(group, vaultGID); wrong != nil {
		return "", e.failOnArgument(function, wrong)
	}
	if file.Perms, wrong = parsePerms(perms); wrong != nil {
		return "", e.failOnArgument(function, wrong)
	}
	flags := ""
	if len(rest) == 2 { // with more, consul-template ignores the flags
		flags = rest[0]
	}
	if strings.Contains(flags, "newline") {
		file.Content = append(file.Content, '\n')
	}
	if err := e.write(file, strings.Contains(flags, "append")); err != nil {
		return "", e.fail("%s: %v; write fewer files, or use fewer directories", function, err)
	}
	return "", nil
}

// write adds a file to the result, or changes one that this execution has written.
func (e *execution) write(file WrittenFile, appends bool) error {
	i, exists := e.layout.files[file.Path]
	if !exists {
		e.files = append(e.files, file)
		return e.layout.add(file.Path)
	}
	before := e.files[i]
	if file.UID < 0 {
		file.UID = before.UID
	}
	if file.GID < 0 {
		file.GID = before.GID
	}
	if appends {
		// In place: a copy for each call would take quadratic time.
		file.Content = append(before.Content, file.Content...)
	}
	e.files[i] = file
	return nil
}

// layout counts files and their directories, within the limits of a volume.
type layout struct {
	files       map[string]int // in the order of add
	directories map[string]bool
}

// add takes time in proportion to the path.
func (l *layout) add(file string) error {
	if l.files == nil {
		l.files, l.directories = map[string]int{}, map[string]bool{}
	}
	if _, exists := l.files[file]; !exists {
		l.files[file] = len(l.files)
	}
	for directory := path.Dir(file); directory != "." && !l.directories[directory]; directory = path.Dir(directory) {
		l.directories[directory] = true
	}
	if err := limits.Files.Check(len(l.files)); err != nil {
		return err
	}
	return limits.Directories.Check(len(l.directories))
}

// relativePath turns a path of the container, or one relative to the volume, into one
// relative to the volume.
func (p Pod) relativePath(name string) (string, *argumentError) {
	mount, clean := cmp.Or(p.MountPath, DefaultMountPath), path.Clean(name)
	if !path.IsAbs(name) {
		clean = path.Join(mount, name)
	}
	relative, below := strings.CutPrefix(clean, mount+"/")
	if name == "" || !below || strings.HasSuffix(name, "/") {
		return "", &argumentError{name, "is not a file below " + mount + ", where the volume is; templates write no other files"}
	}
	if err := limits.FilePathBytes.Check(len(relative)); err != nil {
		return "", &argumentError{name, fmt.Sprintf("is too long below the volume: %v", err)}
	}
	if err := limits.DirectoryDepth.Check(strings.Count(relative, "/")); err != nil {
		return "", &argumentError{name, fmt.Sprintf("is nested too deeply: %v", err)}
	}
	for part := range strings.SplitSeq(relative, "/") {
		if err := limits.FileNameBytes.Check(len(part)); err != nil {
			return "", &argumentError{name, fmt.Sprintf("has a part that is too long: %v", err)}
		}
		if strings.HasPrefix(part, "..") || strings.ContainsFunc(part, unicode.IsControl) {
			return "", &argumentError{name, `has a part that starts with ".." or has a control character; choose another name`}
		}
	}
	return relative, nil
}

// The ids of the user "vault" in the image of the injector's agent.
const (
	vaultUID = 100
	vaultGID = 1000
)

// parseOwner takes numbers and the names that the agent's image has.
func parseOwner(name string, vaultID int) (int, *argumentError) {
	switch name {
	case "":
		return -1, nil
	case "vault":
		return vaultID, nil
	case "root":
		return 0, nil
	}
	id, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return 0, &argumentError{name, `is not an owner; write a number, "vault", "root", or nothing for the owner of the volume's other files`}
	}
	return int(id), nil
}

// parsePerms takes octal digits. It drops the set-id and sticky bits, as consul-template
// does.
func parsePerms(value string) (uint32, *argumentError) {
	perms, err := strconv.ParseUint(value, 8, 32)
	if err != nil {
		return 0, &argumentError{value, `is not an octal file mode; write for example "0640"`}
	}
	return uint32(perms) & 0o777, nil
}
