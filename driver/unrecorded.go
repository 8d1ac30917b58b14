package driver

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
)

// FindUnrecorded takes in the volumes below the kubelet's directory that are mounted and
// have no record: it was lost, or the state was full. They count against the capacity,
// and are taken over at the kubelet's next call for them. It is called before anything
// else. A mount table that cannot be read costs no more than that.
func (m *Mounts) FindUnrecorded(kubeletRoot string) {
	pods := filepath.Join(filepath.Clean(kubeletRoot), "pods")
	// The root itself may be a link, which the mount table does not show.
	real, err := filepath.EvalSymlinks(pods)
	if err != nil {
		return // there is no pod
	}
	found, err := m.mounter.Mounted(real)
	if err != nil {
		m.logger.Error(err, "Volumes without a record are not known; they do not count against the capacity until the kubelet's next call for them")
		return
	}
	m.takeIn(pods, real, found)
}

func (m *Mounts) takeIn(pods, real string, found []string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	recorded := map[string]bool{}
	for _, volume := range m.volumes {
		recorded[volume.mount.Target] = true
	}
	count := 0
	for _, mountPoint := range found {
		v, ok := unrecordedAt(pods, strings.TrimPrefix(mountPoint, real+"/"))
		if !ok || recorded[v.Target] {
			continue
		}
		m.volumes[v.VolumeID] = newMounted(v.measured())
		count++
	}
	if count > 0 {
		m.logger.Info("Volumes are mounted that have no record; they count against the capacity, and are taken over at the kubelet's next call for them", "volumes", count)
	}
}

// unrecordedAt is what the path of a volume below the kubelet's directory of pods tells:
// <pod UID>/volumes/kubernetes.io~csi/<name>/mount.
func unrecordedAt(pods, path string) (mount, bool) {
	parts := strings.Split(path, "/")
	if len(parts) != 5 || parts[1] != "volumes" || parts[2] != "kubernetes.io~csi" || parts[4] != "mount" {
		return mount{}, false
	}
	uid, name := parts[0], parts[3]
	return mount{VolumeID: inlineVolumeID(uid, name), Target: filepath.Join(pods, path), Pod: podRef{UID: uid}}, true
}

// inlineVolumeID is the kubelet's name for an inline volume (makeVolumeHandle in its
// csi_mounter.go). Where it is not, the target path still tells.
func inlineVolumeID(podUID, name string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(podUID+name)))
}

// isUnrecorded is a volume of which only its path is known.
func (v mount) isUnrecorded() bool { return len(v.Files) == 0 }
