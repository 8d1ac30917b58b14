package driver

import (
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
)

// mount is what a volume is besides the content of its files. It is also the
// record of it; fields may be added, and none may change its meaning.
type mount struct {
	VolumeID string
	Target   string
	UID, GID int
	Files    []mountedFile
	// Pod is where Events about the volume go.
	Pod podRef
	// Size is in bytes, and Inodes how many the volume may hold.
	Size   int64
	Inodes int
	// Digest describes the files that the driver wrote last. It is empty during a
	// replacement of the files.
	Digest tmpfs.Digest `json:",omitempty"`
}

// charge is what the volume takes of the node's capacity, in bytes.
func (v mount) charge() int64 { return v.Size + int64(v.Inodes)*tmpfs.InodeBytes }

// describes reports whether other says the same of the volume's files.
func (v mount) describes(other mount) bool {
	return v.Target == other.Target && v.UID == other.UID && v.GID == other.GID && v.Pod == other.Pod && slices.Equal(v.Files, other.Files)
}

type podRef struct{ Namespace, Name, UID string }

type mountedFile struct {
	Path  string
	Perms uint32
}

func newMount(request *csi.NodePublishVolumeRequest, pod volumeContext, spec volume.Spec) (mount, error) {
	owner, err := fileOwner(spec, request.GetVolumeCapability().GetMount().GetVolumeMountGroup())
	if err != nil {
		return mount{}, err
	}
	m := mount{
		VolumeID: request.GetVolumeId(), Target: request.GetTargetPath(), UID: owner.uid, GID: owner.gid,
		Pod: podRef{Namespace: pod.namespace, Name: pod.name, UID: pod.uid},
	}
	var paths []string
	for _, file := range spec.Files {
		m.Files = append(m.Files, mountedFile{Path: file.Path, Perms: file.Perms})
		paths = append(paths, file.Path)
	}
	m.Inodes = tmpfs.Inodes(paths)
	return m, nil
}

type owner struct{ uid, gid int }

// fileOwner lets the pod's fsGroup win over the attribute gid: all containers of
// the pod are members of it, whatever else they run as.
func fileOwner(spec volume.Spec, fsGroup string) (owner, error) {
	o := owner{uid: int(max(spec.Owner.UID, 0)), gid: int(max(spec.Owner.GID, 0))}
	if fsGroup == "" {
		return o, nil
	}
	gid, err := strconv.ParseUint(fsGroup, 10, 31)
	if err != nil {
		return owner{}, argument("volume_mount_group", "is not a numeric group id")
	}
	o.gid = int(gid)
	return o, nil
}
