package driver

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/driver/volumes"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// NodeServer implements csi.NodeServer (CSI spec 1.13).
type NodeServer struct {
	csi.UnimplementedNodeServer

	config Config
	seed   maphash.Seed // of request hashes: nobody can compute two calls with one hash

	restored chan struct{} // closed once volumes is set
	volumes  *volumes.Manager
}

// NewNodeServer returns a server whose calls for volumes wait for Start. The configuration
// must be valid.
func NewNodeServer(config Config) *NodeServer {
	config.KubeletRoot = filepath.Clean(config.KubeletRoot)
	config.Annotations.Driver, config.Annotations.Address = config.Name, config.Vault.Address
	return &NodeServer{config: config, seed: maphash.MakeSeed(), restored: make(chan struct{})}
}

// Start serves the volumes, which are restored. It is called once.
func (s *NodeServer) Start(volumes *volumes.Manager) {
	s.volumes = volumes
	close(s.restored)
}

// restoreTimeout is how long a call waits for Start. Then the kubelet shows the error, and
// calls again.
const restoreTimeout = 30 * time.Second

func (s *NodeServer) awaitRestore(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, restoreTimeout, errNotRestored)
	defer cancel()
	select {
	case <-s.restored:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the volumes of the node: %w", context.Cause(ctx))
	}
}

// NodePublishVolume implements csi.NodeServer. The first call for a volume mounts it, or
// leaves nothing behind: after some errors the kubelet does not call NodeUnpublishVolume.
// Each further call finds the volume mounted and succeeds at once, whatever Vault or the
// attributes say by then: until it succeeds, no container of the pod may start again.
func (s *NodeServer) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := s.awaitRestore(ctx); err != nil {
		return nil, err
	}
	hash := s.requestHash(request)
	unchanged := s.volumes.NoteCall(request.GetVolumeId(), hash)
	if !unchanged { // or it was checked before
		if err := s.checkPublish(request); err != nil {
			return nil, err
		}
	}
	unlock, ok := s.volumes.Lock(request.GetVolumeId())
	if !ok {
		return nil, errInProgress
	}
	defer unlock()
	mounted, err := s.volumes.IsMounted(request.GetTargetPath())
	switch {
	case err != nil:
		return nil, err
	case mounted:
		noteRepublish(ctx)
		if !unchanged {
			s.republish(ctx, request, hash)
		}
	default:
		if err := s.publish(ctx, request, hash); err != nil {
			return nil, fmt.Errorf("volume %q: %w", volumes.NameOf(request.GetTargetPath()), err)
		}
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (s *NodeServer) publish(ctx context.Context, request *csi.NodePublishVolumeRequest, hash uint64) error {
	logger := klog.FromContext(ctx)
	wanted, err := s.decode(logger, request)
	if err != nil {
		return err
	}
	if err := s.volumes.Publish(ctx, wanted.volume, wanted.request, hash); err != nil {
		return wanted.sourceError(err)
	}
	wanted.logWarnings(logger)
	return nil
}

// republish hands fresh tokens on, for when Vault wants to see one again. It cannot fail:
// the volume has its files, whatever comes with the call.
func (s *NodeServer) republish(ctx context.Context, request *csi.NodePublishVolumeRequest, hash uint64) {
	wanted, err := s.decode(klog.Logger{}, request) // what is out of bounds was logged before
	if err != nil {
		klog.FromContext(ctx).V(levelChange).Info("Ignoring a republish that cannot be used; the volume stays as it is", logReason, limits.Shorten(err.Error(), limits.ErrorBytes.Max()))
		return
	}
	s.volumes.Republish(wanted.volume, wanted.request, hash)
}

// requestHash is that of all that a call says, and of the files that the driver reads for
// it. By it, a republish is known to say nothing new: the kubelet sends one for each volume
// every minute or so, and a new token every 48. It is 0 if a file cannot be read.
func (s *NodeServer) requestHash(request *csi.NodePublishVolumeRequest) uint64 {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	ca, readErr := s.config.Vault.ReadCA()
	var clusterCAs [2]string
	for i, name := range []string{volume.ClusterCA, volume.ServiceCA} {
		var err error
		clusterCAs[i], err = s.config.Vault.clusterCA(path.Base(name))
		readErr = errors.Join(readErr, err)
	}
	if err != nil || readErr != nil {
		return 0
	}
	return maphash.Comparable(s.seed, [4]string{string(text), ca, clusterCAs[0], clusterCAs[1]})
}

func (s *NodeServer) checkPublish(request *csi.NodePublishVolumeRequest) error {
	if err := checkPublishFields(request); err != nil {
		return err
	}
	if request.GetVolumeId() == "" {
		return missingField("volume_id")
	}
	if request.GetTargetPath() == "" {
		return missingField("target_path")
	}
	if request.GetVolumeCapability() == nil {
		return missingField("volume_capability")
	}
	mount := request.GetVolumeCapability().GetMount()
	if mount == nil {
		return invalidField("volume_capability", "block volumes are not supported")
	}
	if fsType := mount.GetFsType(); fsType != "" && fsType != "tmpfs" {
		return invalidField("fsType", fmt.Sprintf("%s is not available, a volume is a tmpfs; leave csi.fsType out", quote(fsType)))
	}
	if !request.GetReadonly() {
		return invalidField("csi.readOnly", fmt.Sprintf("is not true, so containers could write to the files: since runc 1.2, a writable mount of a read-only volume is writable; add \"readOnly: true\" beside \"driver: %s\" in the volume", s.config.Name))
	}
	return s.volumes.CheckTarget(request.GetTargetPath())
}

// NodeUnpublishVolume implements csi.NodeServer. The kubelet calls it until it succeeds,
// also for volumes that were never mounted or went with a reboot.
func (s *NodeServer) NodeUnpublishVolume(ctx context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := s.awaitRestore(ctx); err != nil {
		return nil, err
	}
	if err := checkNames(request.GetVolumeId(), "target_path", request.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := s.volumes.CheckTarget(request.GetTargetPath()); err != nil {
		return nil, err
	}
	unlock, ok := s.volumes.Lock(request.GetVolumeId())
	if !ok {
		return nil, errInProgress
	}
	defer unlock()
	if err := s.volumes.Unpublish(request.GetVolumeId(), request.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats implements csi.NodeServer.
func (s *NodeServer) NodeGetVolumeStats(ctx context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := s.awaitRestore(ctx); err != nil {
		return nil, err
	}
	target := request.GetVolumePath()
	if err := checkNames(request.GetVolumeId(), "volume_path", target); err != nil {
		return nil, err
	}
	err := s.volumes.CheckTarget(target)
	var usage tmpfs.Usage
	if err == nil {
		usage, err = tmpfs.ReadUsage(target)
	}
	if wrong := (*volumes.TargetError)(nil); errors.As(err, &wrong) || errors.Is(err, tmpfs.ErrNotMounted) {
		return nil, fmt.Errorf("read the usage of %s: %w", quote(target), errNoVolume) // CSI asks for NOT_FOUND
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: usage.BytesTotal, Used: usage.BytesUsed, Available: usage.BytesAvailable},
		{Unit: csi.VolumeUsage_INODES, Total: usage.InodesTotal, Used: usage.InodesUsed, Available: usage.InodesAvailable},
	}}, nil
}

// checkNames checks the fields that name a volume.
func checkNames(volumeID, pathField, target string) error {
	if volumeID == "" {
		return missingField("volume_id")
	}
	if target == "" {
		return missingField(pathField)
	}
	return checkFields(field{"volume_id", volumeID, limits.NameBytes}, field{pathField, target, limits.TargetPathBytes})
}

// NodeGetInfo implements csi.NodeServer; the kubelet asks once, at registration.
func (s *NodeServer) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: s.config.NodeName}, nil
}

// NodeGetCapabilities implements csi.NodeServer. By VOLUME_MOUNT_GROUP the kubelet hands the
// pod's fsGroup over and leaves the files alone.
func (*NodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	capability := func(rpc csi.NodeServiceCapability_RPC_Type) *csi.NodeServiceCapability {
		return &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: rpc}}}
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{
		capability(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP), capability(csi.NodeServiceCapability_RPC_GET_VOLUME_STATS),
	}}, nil
}
