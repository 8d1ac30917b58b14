package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"

	state "github.com/vaultmount/vaultmount/driver/checkpoint"
)

// Run serves the kubelet until ctx ends; it returns when calls in progress are
// done. When another process takes over, it stands by, and serves again if that
// one ends first: a new version that cannot run leaves the old one at work.
func (p *Plugin) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	// Only root may reach the sockets: whoever does can mount.
	for _, directory := range []string{p.directory(), filepath.Dir(p.endpoint)} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return fmt.Errorf("create the directory of the CSI socket: %w", err)
		}
	}
	defer func() {
		if p.previous != nil {
			p.previous.close()
		}
	}()
	successor, err := p.serveTerm(ctx, p.startTerm)
	for err == nil && successor != nil {
		logger.Info("Another process of the driver has taken over; standing by")
		select {
		case <-ctx.Done():
			successor.end()
			return nil
		case <-successor.gone:
		}
		successor.end()
		logger.Info("The process that took over has ended; taking the volumes back")
		successor, err = p.serveTerm(ctx, p.resumeTerm)
		if errors.Is(err, state.ErrHeld) {
			// It was succeeded before it ended.
			<-ctx.Done()
			return nil
		}
	}
	return err
}

// directory is where the sockets and the state are.
func (p *Plugin) directory() string {
	return filepath.Join(p.config.KubeletRoot, "plugins", p.config.Name)
}

// StateDirectory is the conventional place of what the driver must know of its
// volumes when it starts again.
func StateDirectory(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "state")
}

// DefaultEndpoint is the conventional place of the CSI socket.
func DefaultEndpoint(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "csi.sock")
}

// StatusSocket is the conventional place of the socket that tells of the volumes.
func StatusSocket(kubeletRoot, driverName string) string {
	return filepath.Join(kubeletRoot, "plugins", driverName, "status.sock")
}
