package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// republish hands fresh tokens on, for when Vault wants to see one again. It
// cannot fail: the volume has its files, whatever comes with the call. It reports
// whether that was of use.
func (d *NodeServer) republish(ctx context.Context, request *csi.NodePublishVolumeRequest) (used bool) {
	wanted, mount, err := d.readRepublish(request)
	if err != nil {
		klog.FromContext(ctx).V(levelChange).Info("Republish is of no use for Vault; the volume stays as it is", logReason, limits.Shorten(err.Error(), limits.ErrorBytes.Max()))
		return false
	}
	d.mounts.adopt(mount)
	d.provider.Republish(wanted)
	return true
}

func (d *NodeServer) readRepublish(request *csi.NodePublishVolumeRequest) (provider.Request, mount, error) {
	pod := splitContext(request.GetVolumeContext())
	description, err := d.describe(pod)
	if err != nil {
		return provider.Request{}, mount{}, err
	}
	mount, err := newMount(request, pod, description.spec)
	if err != nil {
		return provider.Request{}, mount, err
	}
	// What is out of bounds was logged at the first publish.
	quiet := klog.NewContext(context.Background(), klog.Logger{})
	wanted, err := d.providerRequest(quiet, request, pod, description.spec)
	return wanted, mount, err
}
