package driver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrar tells the kubelet about the driver: it watches plugins_registry,
// connects to each socket there and asks what is behind it. This takes the place
// of a node-driver-registrar container.
type registrar struct {
	registration.UnimplementedRegistrationServer

	plugin *Plugin
	logger klog.Logger
}

// GetInfo implements registration.RegistrationServer.
func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:     registration.CSIPlugin,
		Name:     r.plugin.config.Name,
		Endpoint: r.plugin.endpoint,
		// The version of CSI, by which the kubelet tells two drivers of one name apart.
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus implements registration.RegistrationServer. After a
// refusal the kubelet tries again by itself.
func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	r.plugin.setRegistered(status.GetPluginRegistered())
	if status.GetPluginRegistered() {
		r.logger.Info("Registered with the kubelet", logDriver, r.plugin.config.Name)
	} else {
		r.logger.Error(nil, "The kubelet refuses the driver", logDriver, r.plugin.config.Name, "reason", status.GetError())
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// registrationSocket is not in plugins_registry: the kubelet takes a driver off the
// node for a second whenever a file there is replaced. There is only a link to it,
// which stays when the next process puts its socket in the place of this one.
func (p *Plugin) registrationSocket() string { return filepath.Join(p.directory(), "reg.sock") }

func (p *Plugin) registry() string { return filepath.Join(p.config.KubeletRoot, "plugins_registry") }

// link is the path of a link in the kubelet's directory.
func (p *Plugin) link(name string) string {
	return filepath.Join(p.registry(), fmt.Sprintf("%s-reg-%s.sock", p.config.Name, name))
}

// announcements are the links of this driver in the kubelet's directory.
func (p *Plugin) announcements() ([]string, error) {
	entries, err := os.ReadDir(p.registry())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for earlier registrations: %w", err)
	}
	var links []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), p.config.Name+"-reg") && strings.HasSuffix(entry.Name(), ".sock") {
			links = append(links, filepath.Join(p.registry(), entry.Name()))
		}
	}
	return links, nil
}

// keepAnnounced leaves the link by which the kubelet has registered the driver. If
// this process does not know that it has, there is a new one: the kubelet tells but
// once for each link, and may have told the other process, which is gone, or said no
// before it was told.
func (p *Plugin) keepAnnounced() error {
	links, err := p.announcements()
	if err != nil {
		return err
	}
	if len(links) == 1 && p.isRegistered() {
		return nil
	}
	return p.announce()
}

// announce has the kubelet register the driver, under a name that it has not seen:
// for one that it failed to reach before, after a reboot for instance, it waits
// longer each time. Two names at once would be two drivers to it, so the old go
// first.
func (p *Plugin) announce() error {
	if err := p.withdraw(); err != nil {
		return err
	}
	link := p.link(rand.Text()[:8])
	if len(link) > maxSocketPath {
		return fmt.Errorf("announce the driver at %s: a socket path has at most %d bytes; shorten --kubelet-root or --driver-name", link, maxSocketPath)
	}
	target, err := filepath.Rel(p.registry(), p.registrationSocket())
	if err != nil {
		return fmt.Errorf("announce the driver: %w", err)
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("announce the driver: %w", err)
	}
	return nil
}

// withdraw takes the driver off the node, as far as the kubelet knows.
func (p *Plugin) withdraw() error {
	links, err := p.announcements()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("withdraw the registration: %w", err))
		}
	}
	p.setRegistered(false)
	return errors.Join(errs...)
}
