package driver

import (
	"context"
	"path/filepath"

	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar tells the kubelet about the driver: it watches plugins_registry,
// connects to each socket there and asks what is behind it. This takes the place
// of a node-driver-registrar container.
type registrar struct {
	registration.UnimplementedRegistrationServer

	config   Config
	endpoint string
	logger   klog.Logger
}

func (c Config) registrationSocket() string {
	return filepath.Join(c.KubeletRoot, "plugins_registry", c.Name+"-reg.sock")
}

// GetInfo implements registration.RegistrationServer.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:     registration.CSIPlugin,
		Name:     r.config.Name,
		Endpoint: r.endpoint,
		// The version of CSI, by which the kubelet tells two drivers of one name apart.
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus implements registration.RegistrationServer. After a
// refusal the kubelet tries again by itself.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		r.logger.Info("Registered with the kubelet", logDriver, r.config.Name)
	} else {
		r.logger.Error(nil, "The kubelet refuses the driver", logDriver, r.config.Name, "reason", status.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}
