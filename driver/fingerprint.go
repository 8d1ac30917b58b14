package driver

import (
	"hash/maphash"
	"path"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/volume"
)

// fingerprint is a number for all that a volume's call says, and that the driver
// adds to it, by which the next call is known to say nothing new: the kubelet
// publishes each volume again every minute or so, and its token is new every 48.
//
// It reports false for a call that may mean something else tomorrow: one that names
// an authority of the cluster, which is a file that Kubernetes replaces.
func (d *NodeServer) fingerprint(request *csi.NodePublishVolumeRequest) (print uint64, repeats bool) {
	authority, err := d.config.Vault.ReadCA()
	if err != nil {
		return 0, false
	}
	mount := request.GetVolumeCapability().GetMount()
	if mount == nil {
		return 0, false
	}
	print = d.hash("target", request.GetTargetPath()) + d.hash("authority", authority) +
		d.hash("group", mount.GetVolumeMountGroup()) + d.hash("type", mount.GetFsType())
	for from, texts := range map[string]map[string]string{"context": request.GetVolumeContext(), "secrets": request.GetSecrets()} {
		for key, value := range texts {
			// Also a part of service-ca.crt, and of templates that read either.
			if strings.Contains(value, path.Base(volume.ClusterCA)) {
				return 0, false
			}
			print += d.hash(from, key, value)
		}
	}
	return print, true
}

// hash tells texts apart, and where one ends and the next begins. What is added up
// has no order, as maps have none. The seed is the process's own: nobody can look for
// two calls with one number.
func (d *NodeServer) hash(texts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(d.seed)
	for _, text := range texts {
		maphash.WriteComparable(&h, len(text))
		_, _ = h.WriteString(text) // cannot fail
	}
	return h.Sum64()
}
