package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// NodeUnpublishVolume implements csi.NodeServer. The kubelet calls it until it
// succeeds, also for volumes that were never mounted or went with a reboot.
func (d *NodeServer) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := d.awaitRestore(ctx); err != nil {
		return nil, err
	}
	if request.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	if request.GetTargetPath() == "" {
		return nil, missing("target_path")
	}
	if err := checkFields(field{"volume_id", request.GetVolumeId(), limits.NameBytes}, field{"target_path", request.GetTargetPath(), limits.TargetPathBytes}); err != nil {
		return nil, err
	}
	if err := d.checkTarget(request.GetTargetPath()); err != nil {
		return nil, err
	}
	if !d.inFlight.start(request.GetVolumeId()) {
		return nil, errInFlight
	}
	defer d.inFlight.finish(request.GetVolumeId())

	if err := d.remove(request.GetVolumeId(), request.GetTargetPath()); err != nil {
		return nil, err
	}
	d.provider.Close(request.GetVolumeId())
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *NodeServer) remove(volumeID, target string) error {
	path, leave, err := d.at(target)
	if err != nil {
		return err
	}
	defer leave()
	return d.mounts.remove(volumeID, target, path)
}
