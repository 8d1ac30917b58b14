package driver

import (
	"fmt"
	"path"
	"strings"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
)

// templatePod is what a template may know of the pod. The node's own address is the
// only thing in it that a pod could not say by itself. The cluster's authority is
// there only for a template that may name it.
func (d *Driver) templatePod(text string, pod volumeContext, spec volume.Spec, secret secretKeys) (provider.Pod, error) {
	known := provider.Pod{
		MountPath:   spec.MountPath,
		Environment: map[string]string{"NAMESPACE": pod.namespace, "POD_NAME": pod.name, "HOST_IP": d.config.HostIP},
		SecretKeys:  secret,
	}
	if !strings.Contains(text, path.Base(volume.ClusterCA)) {
		return known, nil
	}
	var err error
	known.ClusterCA, err = d.config.Vault.clusterCA(volume.ClusterCA)
	return known, err
}

// set puts the files of the volume together: those that the attributes name, and
// those that templates write beside.
func (v mount) set(rendered []provider.Rendered) (tmpfs.Set, error) {
	if len(rendered) != len(v.Files) {
		return tmpfs.Set{}, fmt.Errorf("the volume has %d files, and content for %d was rendered", len(v.Files), len(rendered))
	}
	set := tmpfs.Set{UID: v.UID, GID: v.GID}
	writers := map[string]string{}
	for i, file := range v.Files {
		set.Files = append(set.Files, tmpfs.File{Path: file.Path, Content: rendered[i].Content, Perms: file.Perms})
		writers[file.Path] = fmt.Sprintf("the attribute of %q", file.Path)
	}
	for i, file := range v.Files {
		for _, written := range rendered[i].Written {
			writer := fmt.Sprintf("writeToFile in %q", file.Path)
			if err := checkWritten(written, writer, writers); err != nil {
				return tmpfs.Set{}, fmt.Errorf("render file %q: %w: %w", file.Path, provider.ErrTemplate, err)
			}
			writers[written.Path] = writer
			set.Files = append(set.Files, writtenFile(written, owner{v.UID, v.GID}))
		}
	}
	return set, nil
}

// checkWritten repeats what the renderer has checked, since that may have been
// taken over by the template, and looks for two files at one place.
func checkWritten(written provider.WrittenFile, writer string, writers map[string]string) error {
	if err := volume.CheckFilePath(written.Path); err != nil {
		return fmt.Errorf("writeToFile: %w", err)
	}
	for path, other := range writers {
		switch {
		case path == written.Path:
			return fmt.Errorf("%s and %s make the same file %q; choose another path for one of them", writer, other, path)
		case strings.HasPrefix(path, written.Path+"/"), strings.HasPrefix(written.Path, path+"/"):
			return fmt.Errorf("%s makes %q and %s makes %q, one of which would have to be a directory; choose another path for one of them", writer, written.Path, other, path)
		}
	}
	return nil
}

func writtenFile(written provider.WrittenFile, o owner) tmpfs.File {
	if written.UID >= 0 {
		o.uid = written.UID
	}
	if written.GID >= 0 {
		o.gid = written.GID
	}
	const permissionBits = 0o777
	return tmpfs.File{Path: written.Path, Content: written.Content, Perms: written.Perms & permissionBits, Owner: &tmpfs.Owner{UID: o.uid, GID: o.gid}}
}
