package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// NodeGetInfo implements csi.NodeServer; the kubelet asks once, at registration.
func (p *Plugin) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: p.config.NodeName}, nil
}

// NodeGetCapabilities implements csi.NodeServer.
func (p *Plugin) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{
		// The kubelet hands the pod's fsGroup over and leaves the files alone.
		nodeCapability(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP),
		nodeCapability(csi.NodeServiceCapability_RPC_GET_VOLUME_STATS),
	}}, nil
}

func nodeCapability(rpc csi.NodeServiceCapability_RPC_Type) *csi.NodeServiceCapability {
	return &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: rpc}}}
}

// NodeGetVolumeStats implements csi.NodeServer.
func (d *Driver) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if request.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	target := request.GetVolumePath()
	if target == "" {
		return nil, missing("volume_path")
	}
	if err := checkFields(field{"volume_id", request.GetVolumeId(), limits.NameBytes}, field{"volume_path", target, limits.TargetPathBytes}); err != nil {
		return nil, err
	}
	if err := d.checkTarget(target); err != nil {
		return nil, noVolumeAt(target, err)
	}
	exists, err := tmpfs.Exists(target)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, fmt.Errorf("read the usage of %s: %w", quote(target), errNoVolume)
	}
	usage, err := tmpfs.ReadUsage(target)
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: usage.BytesTotal, Used: usage.BytesUsed, Available: usage.BytesAvailable},
		{Unit: csi.VolumeUsage_INODES, Total: usage.InodesTotal, Used: usage.InodesUsed, Available: usage.InodesAvailable},
	}}, nil
}

// noVolumeAt makes NOT_FOUND of a path that no volume can be on, as CSI asks for;
// what else went wrong stays what it is.
func noVolumeAt(target string, err error) error {
	var field *argumentError
	if !errors.As(err, &field) {
		return err
	}
	return fmt.Errorf("read the usage of %s: %w: %s", quote(target), errNoVolume, field.problem)
}
