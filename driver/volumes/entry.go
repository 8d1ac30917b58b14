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

// mount mounts the volume with its first files. Its record comes first: a record without a
// mount is an orphan, a mount without a record could not be refreshed.
func (e *entry) mount(files []provider.RenderedFile) error {
	e.operation.Lock()
	defer e.operation.Unlock()
	v := e.volume
	payload, err := v.payload(files)
	if err != nil {
		return err
	}
	// By now it is known what templates write, and what the provider retains.
	v.Inodes = max(v.Inodes, payload.Inodes())
	if err := e.manager.admit(e, v); err != nil {
		return err
	}
	path, leave, err := e.manager.openTarget(v.Target)
	if err != nil {
		return err
	}
	defer leave()
	e.saveHeader(v)
	if err := e.manager.config.Mounter.Create(path, v.Size, payload); err != nil {
		return err
	}
	v.Written = payload.Digest()
	e.update(v, false)
	return nil
}

// unmount unmounts the volume. Nothing is written to it from then on.
func (e *entry) unmount(path string) error {
	e.operation.Lock()
	defer e.operation.Unlock()
	watch := e.manager.watch(path)
	if err := tmpfs.Remove(path); err != nil {
		return err
	}
	e.closed = true
	e.manager.countUntilFree(watch, e.volume)
	return nil
}

// redescribe takes over what the attributes say of a mounted volume now.
func (e *entry) redescribe(v Volume) {
	e.operation.Lock()
	defer e.operation.Unlock()
	known := e.volume
	if e.closed || known.describes(v) {
		return
	}
	v.Size, v.Inodes, v.Written = known.Size, known.Inodes, known.Written
	e.update(v.measured(), false)
}

// Replace implements provider.Sink. Files that are there already are not written again.
func (e *entry) Replace(files []provider.RenderedFile) error {
	e.operation.Lock()
	defer e.operation.Unlock()
	if e.closed || e.volume.isUnrecorded() {
		return provider.ErrClosed
	}
	v := e.volume
	payload, err := v.payload(files)
	if err != nil {
		return err
	}
	digest := payload.Digest()
	if v.Written.Equal(digest) {
		return nil
	}
	if inodes := payload.Inodes(); inodes > v.Inodes {
		if v, err = e.grow(v, inodes); err != nil {
			return err
		}
	}
	return e.write(v, payload, digest)
}

// grow lets the volume hold more inodes, as far as the capacity allows.
func (e *entry) grow(v Volume, inodes int) (Volume, error) {
	grown := v
	grown.Inodes = inodes
	if err := e.manager.admit(e, grown); err != nil {
		return v, err
	}
	if err := e.manager.config.Mounter.Grow(v.Target, inodes); err != nil {
		e.update(v, false)
		return v, err
	}
	return grown, nil
}

// write replaces the files. The record says nothing of them meanwhile: a process that is
// killed must not leave a record of other files than there are.
func (e *entry) write(v Volume, payload tmpfs.Payload, digest tmpfs.Digest) error {
	unknown := v
	unknown.Written = nil
	e.saveHeader(unknown)
	if err := e.manager.config.Mounter.Replace(v.Target, payload); err != nil {
		e.update(v, false)
		return err
	}
	v.Written = digest
	e.update(v, false)
	e.manager.config.Logger.V(levelChange).Info("Files replaced", logVolumeID, v.ID)
	return nil
}

// Save implements provider.Sink.
func (e *entry) Save(half []byte) error {
	e.operation.Lock()
	defer e.operation.Unlock()
	if e.closed {
		return nil // the record is gone, or that of another mount
	}
	return e.manager.saveRecord(e, e.volume, half)
}

// Refreshed implements provider.Sink.
func (e *entry) Refreshed(before, now error) {
	if e.manager.config.Refreshed == nil {
		return
	}
	e.manager.mutex.Lock()
	v := e.volume
	e.manager.mutex.Unlock()
	e.manager.config.Refreshed(v, now, !provider.SameKind(before, now))
}

// update changes what is known of the volume. The operation's mutex is held.
func (e *entry) update(v Volume, pending bool) {
	e.manager.mutex.Lock()
	e.volume, e.pending = v, pending
	e.manager.mutex.Unlock()
	e.saveHeader(v)
}

func (e *entry) setClosed(closed bool) {
	e.operation.Lock()
	defer e.operation.Unlock()
	e.closed = closed
}

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
