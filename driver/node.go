package driver

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"path/filepath"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

// Provider fetches and renders what volumes hold. Implementations may be called
// concurrently for different volumes.
type Provider interface {
	// Open returns what becomes of each template, in order. The errors are those
	// of package provider.
	Open(ctx context.Context, request provider.Request) ([]provider.RenderedFile, error)
	// Republish takes over fresh tokens for a volume that is mounted. It neither
	// waits for Vault nor fails.
	Republish(request provider.Request)
	// Close gives up what Open took, without waiting for Vault.
	Close(volumeID string)
}

// NodeServer implements csi.NodeServer (CSI spec 1.13).
type NodeServer struct {
	csi.UnimplementedNodeServer

	config   Config
	seed     maphash.Seed // of fingerprints
	inFlight inFlight

	restored chan struct{} // closed once mounts and provider are set
	mounts   *Mounts
	provider Provider
}

// NewNodeServer returns a server whose calls for volumes wait for Start. The configuration
// must be valid.
func NewNodeServer(config Config) *NodeServer {
	config.KubeletRoot = filepath.Clean(config.KubeletRoot)
	config.Annotations.Driver, config.Annotations.Address = config.Name, config.Vault.Address
	return &NodeServer{config: config, seed: maphash.MakeSeed(), restored: make(chan struct{})}
}

// retainer is a provider that tells how many bytes it keeps for a volume.
type retainer interface{ RetainedBytes(volumeID string) int64 }

// Start serves the volumes that are restored. It is called once.
func (d *NodeServer) Start(mounts *Mounts, provider Provider) {
	mounts.capacity = capacity{node: d.config.VolumeCapacity, namespace: d.config.NamespaceCapacity()}
	if r, ok := provider.(retainer); ok {
		mounts.capacity.retained = r.RetainedBytes
	}
	d.mounts, d.provider = mounts, provider
	close(d.restored)
}

// restoreTimeout is how long a call waits for Start. Then the kubelet shows the error, and
// calls again.
const restoreTimeout = 30 * time.Second

func (d *NodeServer) awaitRestore(ctx context.Context) error {
	select {
	case <-d.restored:
		return nil
	default:
	}
	timeout := time.NewTimer(restoreTimeout)
	defer timeout.Stop()
	select {
	case <-d.restored:
		return nil
	case <-timeout.C:
		return errNotRestored
	case <-ctx.Done():
		return fmt.Errorf("wait until the volumes of the node are restored: %w", ctx.Err())
	}
}

// inFlight keeps two calls from working on one volume: the kubelet gives up on a
// call after two minutes and may then send the next while the first still runs.
type inFlight struct {
	mutex   sync.Mutex
	volumes map[string]bool
}

// start reports false if a call for the volume is in progress.
func (f *inFlight) start(volumeID string) bool {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.volumes[volumeID] {
		return false
	}
	if f.volumes == nil {
		f.volumes = map[string]bool{}
	}
	f.volumes[volumeID] = true
	return true
}

func (f *inFlight) finish(volumeID string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	delete(f.volumes, volumeID)
}

// NodeGetInfo implements csi.NodeServer; the kubelet asks once, at registration.
func (d *NodeServer) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.config.NodeName}, nil
}

// NodeGetCapabilities implements csi.NodeServer.
func (*NodeServer) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
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
func (d *NodeServer) NodeGetVolumeStats(ctx context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := d.awaitRestore(ctx); err != nil {
		return nil, err
	}
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
