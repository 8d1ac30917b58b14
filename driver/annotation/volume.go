package annotation

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

const defaultVolumePath = "/vault/secrets"

// mountPath is the clean mount of a file. The injector compares the text, and so
// mounts twice at /vault/secrets and /vault/secrets/, one above the other.
func (r *reading) mountPath(f *file) string {
	name := familyVolumePath + f.suffix
	value, present := r.values[name]
	if !present {
		return r.defaultPath()
	}
	if err := checkMountPath(value); err != nil {
		r.refuseFile(f, name, "%v", err)
		return r.defaultPath()
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
	common["default-template"] = attribute{string(r.defaultTemplate()), nameDefaultTemplate}
	if !complete {
		return nil
	}
	var volumes []Volume
	for _, mount := range roots(files) {
		below := slices.DeleteFunc(slices.Clone(files), func(f *file) bool {
			return !isBelow(f.destination, mount)
		})
		delete(common, "mount-path")
		if slices.ContainsFunc(below, (*file).writesMore) {
			common["mount-path"] = attribute{mount, nameVolumePath}
		}
		v, ok := r.spec(mount, common, below)
		if ok {
			v.SecretName = secret
			volumes = append(volumes, v)
		}
	}
	r.nameVolumes(volumes)
	return slices.DeleteFunc(volumes, func(v Volume) bool { return !r.isUsable(v) })
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

// roots are the mount paths that lie in no other one. The container runtime could
// not make a mount point inside a read-only volume, so the files of an inner
// path go into the outer volume, where they are at the same place.
func roots(files []*file) []string {
	var mounts []string
	for _, f := range files {
		mounts = append(mounts, f.mount)
	}
	slices.Sort(mounts)
	var outer []string
	for _, mount := range slices.Compact(mounts) {
		inside := func(directory string) bool { return isBelow(mount, directory) }
		if !slices.ContainsFunc(outer, inside) {
			outer = append(outer, mount)
		}
	}
	return outer
}

func (r *reading) nameVolumes(volumes []Volume) {
	custom := 0
	for i := range volumes {
		if volumes[i].MountPath == r.defaultPath() {
			volumes[i].Name = volumeName
			continue
		}
		volumes[i].Name = fmt.Sprint(customVolumeName, custom)
		custom++
	}
}
