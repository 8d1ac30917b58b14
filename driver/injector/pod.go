package injector

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// The names of volumes are the injector's: pods mount them by name with a subPath.
const (
	volumeName       = "vault-secrets"
	customVolumeName = volumeName + "-custom-"
)

// keyMountPath is the attribute that says which of the pod's volumes this one is.
const keyMountPath = "mount-path"

// volumes makes one volume for each mount path. A pod without a file gets none: there is
// no agent that could fill an empty one later.
func (t *translation) volumes(files []*file) []Volume {
	if _, err := t.mountPath(nameVolumePath, ""); err != nil {
		t.reject(nameVolumePath, "%v", err)
	} else if t.has(nameVolumePath) && !slices.ContainsFunc(files, func(f *file) bool { return f.mount == t.directory }) {
		t.warn(nameVolumePath, "no file is below %s, so nothing is mounted there; remove it", quote(t.directory))
	}
	secret := t.volumeSecret(files)
	files = slices.DeleteFunc(slices.Clone(files), func(f *file) bool { return f.rejected })
	hasLogin := t.setLogin()
	t.setOwner()
	if t.format != volume.Map && !t.has(nameDefaultTemplate) {
		t.setAttribute("default-template", string(t.format), nameDefaultTemplate)
	}
	byRoot := byRoot(files)
	if err := t.checkVolumeCount(len(byRoot)); err != nil && hasLogin {
		t.reject(nameInject, "%v; use fewer secret-volume-path-X", err)
		return nil
	}
	var volumes []Volume
	custom := 0
	for _, mount := range slices.Sorted(maps.Keys(byRoot)) {
		v, ok := t.volume(mount, byRoot[mount])
		if !ok || !hasLogin {
			continue
		}
		v.Name, v.SecretName = volumeName, secret
		if mount != t.directory {
			v.Name = fmt.Sprint(customVolumeName, custom)
			custom++
		}
		if t.isUsable(v) {
			volumes = append(volumes, v)
		}
	}
	return volumes
}

// volume asks the driver's own parser, so that what the driver would reject when the pod
// starts is rejected here, under the name of the annotation. It drops files that the parser
// rejects. Without an attribute of the whole volume there is no volume.
func (t *translation) volume(mount string, files []*file) (Volume, bool) {
	common := maps.Clone(t.attributes)
	// Templates that write further files do so below the mount path.
	writesMore := func(f *file) bool { return strings.Contains(f.attributes[attrTemplate].value, "writeToFile") }
	if mount != volume.DefaultMountPath && slices.ContainsFunc(files, writesMore) {
		common[keyMountPath] = attribute{mount, nameVolumePath}
	}
	all := maps.Clone(common)
	for _, f := range files {
		maps.Copy(all, f.attributesIn(mount))
	}
	spec, problems := volume.ParseAll(valuesOf(all))
	complete := true
	for _, problem := range problems {
		a, known := all[problem.Key]
		if known || len(t.errors) == 0 { // what is missing was rejected before
			t.reject(cmp.Or(a.source, nameInject), "%s", problem.Problem)
		}
		_, isCommon := common[problem.Key]
		complete = complete && known && !isCommon
	}
	good := map[string]bool{}
	spec.Files = slices.DeleteFunc(spec.Files, func(f volume.File) bool {
		good[f.Path] = t.checkTemplate(spec, f, all)
		return !good[f.Path]
	})
	for _, f := range files {
		if good[f.destination[len(mount)+1:]] {
			maps.Copy(common, f.attributesIn(mount))
		}
	}
	v := Volume{MountPath: mount, Attributes: valuesOf(common), Spec: spec, pathSource: nameVolumePath}
	v.Sources = map[string]string{"auth-path": t.settings.Prefix + nameAuthPath}
	for key, a := range common {
		v.Sources[key] = t.settings.Prefix + a.source
	}
	if name := familyVolumePath + files[0].suffix; t.has(name) {
		v.pathSource = name
	}
	return v, complete && len(spec.Files) > 0
}

func (t *translation) checkTemplate(spec volume.Spec, f volume.File, all map[string]attribute) bool {
	text := spec.Text(f)
	if text == "" || t.settings.CheckTemplate == nil {
		return true
	}
	err := t.settings.CheckTemplate(f, text, spec.MountPath)
	if err == nil {
		return true
	}
	template, secret := all[attrTemplate+"/"+f.Path].source, all[attrSecret+"/"+f.Path].source
	if suffix, ok := strings.CutPrefix(template, familySecret); ok {
		err = fmt.Errorf("the path makes an %w; write %s%s", err, familyTemplate, suffix)
	}
	t.reject(cmp.Or(template, secret), "%v", err)
	return false
}

func valuesOf(attributes map[string]attribute) map[string]string {
	values := map[string]string{}
	for key, a := range attributes {
		values[key] = a.value
	}
	return values
}

// attributesIn are the attributes by the names that they have in the volume at mount.
func (f *file) attributesIn(mount string) map[string]attribute {
	attributes := map[string]attribute{}
	name := f.destination[len(mount)+1:]
	for attr, a := range f.attributes {
		attributes[attr+"/"+name] = a
	}
	if f.isToken {
		attributes["token-file"] = attribute{name, f.source}
	}
	return attributes
}

// mountPath is the clean directory that an annotation chooses, or the default. The
// injector compares the text, and so mounts twice at /vault/secrets and /vault/secrets/.
func (t *translation) mountPath(name, otherwise string) (string, error) {
	if !t.has(name) {
		return otherwise, nil
	}
	if err := checkMountPath(t.values[name]); err != nil {
		return otherwise, err
	}
	return path.Clean(t.values[name]), nil
}

func checkMountPath(value string) error {
	_, problems := volume.ParseAll(map[string]string{keyMountPath: value, "role": "any", attrSecret + "/any": "any"})
	if len(problems) == 0 {
		return nil
	}
	return errors.New(problems[0].Problem)
}

// byRoot groups files by the mount paths that are inside no other one. The container
// runtime cannot create a mount point in a read-only volume, so the files of an inner
// path go into the outer volume, where they are at the same place.
func byRoot(files []*file) map[string][]*file {
	mounts := map[string]bool{}
	for _, f := range files {
		mounts[f.mount] = true
	}
	grouped := map[string][]*file{}
	for _, f := range files {
		root := f.mount
		for directory := range directories(f.mount) {
			if mounts[directory] {
				root = directory
			}
		}
		grouped[root] = append(grouped[root], f)
	}
	return grouped
}

// isUsable lets a pod declare an emptyDir under the injector's name, as some do to
// satisfy a linter; it is replaced. Any other volume is the pod's own.
func (t *translation) isUsable(v Volume) bool {
	declared := t.podVolumes[v.Name]
	if declared == nil {
		return true
	}
	if declared.EmptyDir == nil {
		t.reject(nameInject, "the pod has a volume %q of its own; rename it", v.Name)
		return false
	}
	t.warn(nameInject, "the emptyDir %q of the pod is replaced by the volume with the secrets; remove it", v.Name)
	return true
}

// checkVolumeCount checks how many volumes and mounts the pod will have.
func (t *translation) checkVolumeCount(volumes int) error {
	if err := limits.PodVolumes.Check(volumes); err != nil {
		return err
	}
	mounts := 0
	for _, c := range slices.Concat(t.pod.Spec.InitContainers, t.pod.Spec.Containers) {
		mounts += volumes + len(c.VolumeMounts)
	}
	return limits.PodMounts.Check(mounts)
}

// Operation is one of a JSON patch (RFC 6902), as a MutatingWebhook returns it. Op is
// "add" or "replace".
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// AnnotateOperation returns the operation that sets an annotation of a pod that has one
// already.
func AnnotateOperation(key, value string) Operation {
	return Operation{"add", "/metadata/annotations/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key), value}
}

// patch marks the pod, which keeps a second call and an injector in the same cluster from
// changing it again, and adds the volumes and their mounts: all volumes to the chosen
// containers and to all init containers, which the injector does not let a pod choose.
func (t *translation) patch(volumes []Volume) []Operation {
	all := []Operation{AnnotateOperation(t.settings.Prefix+nameStatus, statusInjected)}
	chosen := t.containers()
	for i, c := range t.pod.Spec.Containers {
		if chosen[c.Name] {
			all = append(all, appendTo(fmt.Sprintf("/spec/containers/%d/volumeMounts", i), len(c.VolumeMounts), t.mounts(c, volumes))...)
		}
	}
	for i, c := range t.pod.Spec.InitContainers {
		all = append(all, appendTo(fmt.Sprintf("/spec/initContainers/%d/volumeMounts", i), len(c.VolumeMounts), t.mounts(c, volumes))...)
	}
	if t.sharesProcesses() {
		all = append(all, Operation{"add", "/spec/shareProcessNamespace", true})
	}
	var added []corev1.Volume
	for _, v := range volumes {
		index := slices.IndexFunc(t.pod.Spec.Volumes, func(declared PodVolume) bool { return declared.Name == v.Name })
		if index < 0 {
			added = append(added, t.csiVolume(v))
			continue
		}
		all = append(all, Operation{"replace", fmt.Sprint("/spec/volumes/", index), t.csiVolume(v)})
	}
	return append(all, appendTo("/spec/volumes", len(t.pod.Spec.Volumes), added)...)
}

// appendTo adds items to a list. A list without items may be absent.
func appendTo[T any](path string, length int, items []T) []Operation {
	if length == 0 && len(items) > 0 {
		return []Operation{{"add", path, items}}
	}
	var all []Operation
	for _, item := range items {
		all = append(all, Operation{"add", path + "/-", item})
	}
	return all
}

// csiVolume is read-only for the kubelet too: since runc 1.2 containers could write to it
// otherwise, so the driver rejects it.
func (t *translation) csiVolume(v Volume) corev1.Volume {
	source := &corev1.CSIVolumeSource{Driver: t.settings.Driver, ReadOnly: new(true), VolumeAttributes: v.Attributes}
	if v.SecretName != "" {
		source.NodePublishSecretRef = &corev1.LocalObjectReference{Name: v.SecretName}
	}
	return corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{CSI: source}}
}

// containers are those that get the volumes. The injector does not trim names and
// ignores unknown ones, so that the application starts without its secrets.
func (t *translation) containers() map[string]bool {
	var names []string
	known, inits, chosen, seen := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range t.pod.Spec.InitContainers {
		inits[c.Name] = true
	}
	for _, c := range t.pod.Spec.Containers {
		names, known[c.Name] = append(names, c.Name), true
	}
	if !t.has(nameContainers) {
		return known
	}
	for part := range strings.SplitSeq(t.values[nameContainers], ",") {
		name := strings.TrimSpace(part)
		switch {
		case name == "" || seen[name]:
		case known[name]:
			chosen[name] = true
		case inits[name]:
			t.warn(nameContainers, "the init container %s has the secrets in any case; leave it out", quote(name))
		default:
			t.reject(nameContainers,
				"the pod has no container %s; write the names of its containers, which are %s",
				quote(name), lazy(func() string { return quoteAll(names) }))
		}
		seen[name] = true
	}
	if len(chosen) == 0 && len(t.errors) == 0 {
		t.warn(nameContainers, "names no container, so only init containers have the secrets; remove it to have them in all")
	}
	return chosen
}

// mounts are those of a container. It rejects a container with a mount at the same
// place, as the API server would, and one with a mount below it, where the runtime
// cannot create a mount point in the read-only volume. A pod may mount the volume itself.
func (t *translation) mounts(container PodContainer, volumes []Volume) []corev1.VolumeMount {
	var mounts []corev1.VolumeMount
	for _, v := range volumes {
		free := true
		for _, mount := range container.VolumeMounts {
			at := path.Clean(mount.MountPath)
			if at == v.MountPath && mount.Name == v.Name && mount.SubPath == "" && mount.SubPathExpr == "" {
				free = false
				continue
			}
			if at == v.MountPath || isBelow(at, v.MountPath) {
				t.reject(v.pathSource,
					"the container %s mounts %s at %s, where the secrets go; choose another directory for one of them",
					quote(container.Name), quote(mount.Name), quote(at))
				free = false
				break
			}
		}
		if free {
			mounts = append(mounts, corev1.VolumeMount{Name: v.Name, MountPath: v.MountPath, ReadOnly: true})
		}
	}
	return mounts
}
