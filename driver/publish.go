package driver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/driver/volume"
	"github.com/vaultmount/vaultmount/provider"
)

// NodePublishVolume implements csi.NodeServer. The first call for a volume makes
// it, or leaves nothing behind: after some errors the kubelet does not call
// NodeUnpublishVolume. Each further call finds the volume there and is answered
// at once, whatever Vault or the attributes say by then: until the answer is OK,
// no container of the pod may start again.
func (d *NodeServer) NodePublishVolume(ctx context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := d.awaitRestore(ctx); err != nil {
		return nil, err
	}
	print, repeats := d.fingerprint(request)
	isSame := repeats && d.mounts.isPublished(request.GetVolumeId(), print)
	if !isSame { // or it was checked before
		if err := d.checkPublish(request); err != nil {
			return nil, err
		}
	}
	if !d.inFlight.start(request.GetVolumeId()) {
		return nil, errInFlight
	}
	defer d.inFlight.finish(request.GetVolumeId())

	exists, err := tmpfs.Exists(request.GetTargetPath())
	if err != nil {
		return nil, err
	}
	if exists {
		noteRepublish(ctx)
		defer d.mounts.noteCall(request.GetVolumeId())
		if isSame {
			d.provider.Republish(provider.Request{VolumeID: request.GetVolumeId(), Same: true})
		} else if d.republish(ctx, request) && repeats {
			d.mounts.published(request.GetVolumeId(), print)
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := d.publish(ctx, request); err != nil {
		return nil, fmt.Errorf("volume %q: %w", volumeName(request.GetTargetPath()), err)
	}
	if repeats {
		d.mounts.published(request.GetVolumeId(), print)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *NodeServer) checkPublish(request *csi.NodePublishVolumeRequest) error {
	if err := checkPublishFields(request); err != nil {
		return err
	}
	if request.GetVolumeId() == "" {
		return missing("volume_id")
	}
	if request.GetTargetPath() == "" {
		return missing("target_path")
	}
	if request.GetVolumeCapability() == nil {
		return missing("volume_capability")
	}
	mount := request.GetVolumeCapability().GetMount()
	if mount == nil {
		return argument("volume_capability", "the driver serves file systems, not block devices")
	}
	if fsType := mount.GetFsType(); fsType != "" && fsType != "tmpfs" {
		return argument("fsType", fmt.Sprintf("%s is not available, a volume is a tmpfs; leave csi.fsType out", quote(fsType)))
	}
	if !request.GetReadonly() {
		return argument("csi.readOnly", fmt.Sprintf("is not true, so containers could write to the files: since runc 1.2, a writable mount of a read-only volume is writable; add \"readOnly: true\" beside \"driver: %s\" in the volume", d.config.Name))
	}
	return d.checkTarget(request.GetTargetPath())
}

func (d *NodeServer) publish(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	pod := splitContext(request.GetVolumeContext())
	description, err := d.describe(pod)
	if err != nil {
		return err
	}
	if err := d.publishAs(ctx, request, pod, description.spec); err != nil {
		return description.blame(err)
	}
	description.logWarnings(ctx)
	return nil
}

func (d *NodeServer) publishAs(ctx context.Context, request *csi.NodePublishVolumeRequest, pod volumeContext, spec volume.Spec) error {
	size, err := d.volumeSize(spec)
	if err != nil {
		return err
	}
	mount, err := newMount(request, pod, spec)
	if err != nil {
		return err
	}
	mount.Size = size
	if !pod.ephemeral {
		return errNoPodInfo
	}
	wanted, err := d.providerRequest(ctx, request, pod, spec)
	if err != nil {
		return err
	}
	// A volume without capacity costs Vault nothing.
	if err := d.mounts.reserve(mount); err != nil {
		return err
	}
	defer d.mounts.release(mount.VolumeID)
	rendered, err := d.provider.Open(ctx, wanted)
	if err != nil {
		return err
	}
	attached := false
	defer func() {
		if !attached {
			d.provider.Close(mount.VolumeID)
		}
	}()
	err = d.attach(ctx, mount, rendered)
	attached = err == nil
	return err
}

// attach mounts a volume, unless the call was cancelled: the kubelet may have asked for the
// removal of the volume since.
func (d *NodeServer) attach(ctx context.Context, mount mount, contents []provider.RenderedFile) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mount the volume: %w", err)
	}
	path, leave, err := d.at(mount.Target)
	if err != nil {
		return err
	}
	defer leave()
	return d.mounts.attach(mount, path, contents)
}

func (d *NodeServer) providerRequest(ctx context.Context, request *csi.NodePublishVolumeRequest, pod volumeContext, spec volume.Spec) (provider.Request, error) {
	wanted := provider.Request{VolumeID: request.GetVolumeId(), PodUID: pod.uid, Pod: pod.namespace + "/" + pod.name}
	secret := newSecretKeys(request.GetSecrets())
	if spec.HasToken() && d.config.Vault.ForbidTokenFile {
		return wanted, refuse("token-file", "is forbidden in this cluster (--forbid-token-file); let a template write the secrets themselves")
	}
	var err error
	if wanted.Size, err = d.volumeSize(spec); err != nil {
		return wanted, err
	}
	if wanted.Files, err = outputs(spec, secret); err != nil {
		return wanted, err
	}
	for i := range wanted.Files {
		template := &wanted.Files[i].Template
		if template.Pod, err = d.templatePod(template.Text, pod, spec, secret); err != nil {
			return wanted, err
		}
	}
	if wanted.Endpoint, err = d.config.Vault.endpoint(spec.Server, secret); err != nil {
		return wanted, err
	}
	if wanted.Login, err = login(request, pod, spec.Auth, secret, d.config.Vault.foreign(wanted.Endpoint.Address)); err != nil {
		return wanted, err
	}
	logger := klog.FromContext(ctx)
	wanted.Options = sessionOptions(logger, spec)
	wanted.Refresh = d.config.refresh(logger, spec.Lifecycle)
	return wanted, nil
}

func (d *NodeServer) volumeSize(spec volume.Spec) (int64, error) {
	if spec.Size > d.config.MaxVolumeSize {
		return 0, &volume.AttributeError{Key: "size", Problem: fmt.Sprintf("%d bytes is more than the %d that this cluster allows for a volume (the driver's --max-volume-size)", spec.Size, d.config.MaxVolumeSize)}
	}
	if spec.Size == 0 {
		return d.config.VolumeSize, nil
	}
	return spec.Size, nil
}
