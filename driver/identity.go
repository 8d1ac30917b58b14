package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// identityServer implements csi.IdentityServer.
type identityServer struct {
	csi.UnimplementedIdentityServer

	config Config
}

// GetPluginInfo implements csi.IdentityServer.
func (s identityServer) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: s.config.Name, VendorVersion: s.config.Version}, nil
}

// GetPluginCapabilities implements csi.IdentityServer. There is no controller.
func (identityServer) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{}, nil
}

// Probe implements csi.IdentityServer. It asks neither Vault, since a restart of the
// driver repairs no Vault, nor for the volumes, which may not be restored yet.
func (identityServer) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
