package volumes

import (
	"fmt"
	"path"
	"strings"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// payload puts the files of the volume together: those that the attributes name, and
// those that templates write beside. Nothing is created before all of them are checked.
func (v Volume) payload(rendered []provider.RenderedFile) (tmpfs.Payload, error) {
	if len(rendered) != len(v.Files) {
		return nil, fmt.Errorf("the volume has %d files, and content for %d was rendered", len(v.Files), len(rendered))
	}
	count := len(v.Files)
	for _, each := range rendered {
		count += len(each.Written)
	}
	if err := limits.Files.Check(count); err != nil {
		return nil, fmt.Errorf("%w: the files of the volume, with those of writeToFile: %w", provider.ErrTemplate, err)
	}
	var payload tmpfs.Payload
	tree := fileTree{files: map[string]string{}, directories: map[string]string{}}
	for i, file := range v.Files {
		payload = append(payload, tmpfs.File{Path: file.Path, Content: rendered[i].Content, Perms: file.Perms, UID: v.UID, GID: v.GID})
		if err := tree.add(file.Path, "the attribute of "+quote(file.Path)); err != nil {
			return nil, fmt.Errorf("%w: %w", provider.ErrTemplate, err)
		}
	}
	for i, file := range v.Files {
		for _, written := range rendered[i].Written {
			// The renderer has checked the path, but a template may have taken it over.
			err := volume.CheckFilePath(written.Path)
			if err != nil {
				err = fmt.Errorf("writeToFile: %w", err)
			} else {
				err = tree.add(written.Path, "writeToFile in "+quote(file.Path))
			}
			if err != nil {
				return nil, fmt.Errorf("render file %s: %w: %w", quote(file.Path), provider.ErrTemplate, err)
			}
			payload = append(payload, writtenFile(written, v.UID, v.GID))
		}
	}
	return payload, nil
}

// fileTree is the paths of a volume, each with what makes it.
type fileTree struct{ files, directories map[string]string }

// add takes one more file in. It takes time in proportion to the path alone.
func (t fileTree) add(file, maker string) error {
	if err := limits.DirectoryDepth.Check(strings.Count(file, "/")); err != nil {
		return fmt.Errorf("the path %s: %w", quote(file), err)
	}
	if other, exists := t.files[file]; exists {
		return fmt.Errorf("%s and %s make the same file %s; choose another path for one of them", maker, other, quote(file))
	}
	if other, exists := t.directories[file]; exists {
		return conflict(maker, file, other, "a path below it")
	}
	for directory := path.Dir(file); directory != "."; directory = path.Dir(directory) {
		if other, exists := t.files[directory]; exists {
			return conflict(other, directory, maker, quote(file))
		}
		if _, exists := t.directories[directory]; exists {
			break
		}
		t.directories[directory] = maker
	}
	t.files[file] = maker
	if err := limits.Directories.Check(len(t.directories)); err != nil {
		return fmt.Errorf("the directories of the volume: %w", err)
	}
	return nil
}

func conflict(one, file, other, below string) error {
	return fmt.Errorf("%s makes %s and %s makes %s, one of which would have to be a directory; choose another path for one of them", one, quote(file), other, below)
}

// writtenFile has the owner of the volume's other files unless the template names one.
func writtenFile(written provider.WrittenFile, uid, gid int) tmpfs.File {
	if written.UID >= 0 {
		uid = written.UID
	}
	if written.GID >= 0 {
		gid = written.GID
	}
	const permissionBits = 0o777
	return tmpfs.File{Path: written.Path, Content: written.Content, Perms: written.Perms & permissionBits, UID: uid, GID: gid}
}
