package injector

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vaultmount/vaultmount/provider/limits"
)

const defaultVolumePath = "/vault/secrets"

// mountPath is the clean mount of a file. The injector compares the text, and so
// mounts twice at /vault/secrets and /vault/secrets/, one above the other.
func (r *reading) mountPath(f *file) string {
	name := familyVolumePath + f.suffix
	value, present := r.values[name]
	if !present {
		return r.directory
	}
	if err := checkMountPath(value); err != nil {
		r.refuseFile(f, name, "%v", err)
		return r.directory
	}
	return path.Clean(value)
}

func (r *reading) defaultPath() string {
	value, present := r.values[nameVolumePath]
	if !present || checkMountPath(value) != nil {
		return defaultVolumePath
	}
	return path.Clean(value)
}

func checkMountPath(value string) error {
	if err := limits.FilePathBytes.Check(len(value)); err != nil {
		return fmt.Errorf("the path: %w; shorten it", err)
	}
	if !path.IsAbs(value) || path.Clean(value) == "/" || strings.Contains(value, ":") {
		return fmt.Errorf("%s is not a directory to mount at; write an absolute path such as %q", quote(value), defaultVolumePath)
	}
	return nil
}

// volumes makes one volume for each mount path. A pod without a file gets none:
// there is no agent that could fill an empty one later.
func (r *reading) volumes(files []*file) []Volume {
	r.checkDefaultPath(files)
	secret := r.volumeSecret(files)
	files = slices.DeleteFunc(slices.Clone(files), func(f *file) bool { return f.refused })
	complete := r.login()
	common := maps.Clone(r.attributes)
	maps.Copy(common, r.owner())
	common["default-template"] = attribute{string(r.format), nameDefaultTemplate}
	if !complete {
		return nil
	}
	byRoot := byRoot(files)
	if err := r.checkVolumes(len(byRoot)); err != nil {
		r.refuse(nameInject, "%v; use fewer secret-volume-path-X", err)
		return nil
	}
	var volumes []Volume
	for _, mount := range slices.Sorted(maps.Keys(byRoot)) {
		below := byRoot[mount]
		delete(common, "mount-path")
		if slices.ContainsFunc(below, (*file).writesMore) {
			common["mount-path"] = attribute{mount, nameVolumePath}
		}
		v, ok := r.spec(mount, common, below)
		if ok {
			v.SecretName, v.pathOrigin = secret, r.pathOrigin(below[0])
			volumes = append(volumes, v)
		}
	}
	r.nameVolumes(volumes)
	return slices.DeleteFunc(volumes, func(v Volume) bool { return !r.isUsable(v) })
}

// pathOrigin is the annotation that chooses the mount path of a file.
func (r *reading) pathOrigin(f *file) string {
	if _, present := r.values[familyVolumePath+f.suffix]; present {
		return familyVolumePath + f.suffix
	}
	return nameVolumePath
}

// writesMore says whether the template may write further files, by paths that it
// takes from the container.
func (f *file) writesMore() bool {
	return strings.Contains(f.attributes[verbTemplate].value, "writeToFile")
}

func (r *reading) checkDefaultPath(files []*file) {
	value, present := r.values[nameVolumePath]
	if !present {
		return
	}
	if err := checkMountPath(value); err != nil {
		r.refuse(nameVolumePath, "%v", err)
		return
	}
	uses := func(f *file) bool { return f.mount == path.Clean(value) }
	if !slices.ContainsFunc(files, uses) {
		r.warn(nameVolumePath, "no file is below %s, so nothing is mounted there; remove it", quote(value))
	}
}

// byRoot groups files by the mount paths that lie in no other one. The container
// runtime could not make a mount point inside a read-only volume, so the files of an
// inner path go into the outer volume, where they are at the same place.
func byRoot(files []*file) map[string][]*file {
	mounts := map[string]bool{}
	for _, f := range files {
		mounts[f.mount] = true
	}
	grouped := map[string][]*file{}
	for _, f := range files {
		root := f.mount // that of the file itself, or of one further out
		for directory := range directories(f.mount) {
			if mounts[directory] {
				root = directory
			}
		}
		grouped[root] = append(grouped[root], f)
	}
	return grouped
}

func (r *reading) nameVolumes(volumes []Volume) {
	custom := 0
	for i := range volumes {
		if volumes[i].MountPath == r.directory {
			volumes[i].Name = volumeName
			continue
		}
		volumes[i].Name = fmt.Sprint(customVolumeName, custom)
		custom++
	}
}
