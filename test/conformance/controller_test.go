package conformance

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// controller answers for the controller that the driver does not have: the suite
// wants volumes from one. It sits in the suite's own client. Volumes are published
// read-only, as the driver demands; all other calls go to it as they are.
type controller struct {
	volumeContext map[string]string
}

func (c controller) intercept(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	answer := reply.(proto.Message)
	switch method {
	case csi.Controller_ControllerGetCapabilities_FullMethodName:
		proto.Merge(answer, &csi.ControllerGetCapabilitiesResponse{Capabilities: []*csi.ControllerServiceCapability{{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}},
		}}})
		return nil
	case csi.Controller_CreateVolume_FullMethodName:
		proto.Merge(answer, &csi.CreateVolumeResponse{Volume: &csi.Volume{
			VolumeId: "csi-" + request.(*csi.CreateVolumeRequest).GetName(), VolumeContext: c.volumeContext,
		}})
		return nil
	case csi.Controller_DeleteVolume_FullMethodName:
		return nil
	}
	if publish, ok := request.(*csi.NodePublishVolumeRequest); ok {
		publish.Readonly = true // the suite cannot ask for it
	}
	if err := invoke(ctx, method, request, reply, connection, options...); err != nil {
		return err
	}
	if method == csi.Identity_GetPluginCapabilities_FullMethodName {
		proto.Merge(answer, &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}},
		}}})
	}
	return nil
}
