package driver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider/recovery"
)

// sweepInterval is the time between two looks for volumes that nobody will ask to
// remove. They come of what the kubelet forgets, which is rare.
const sweepInterval = 10 * time.Minute

// sweepUntil sweeps now and from time to time, until ctx ends.
func (d *Driver) sweepUntil(ctx context.Context) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		d.sweep(klog.FromContext(ctx))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep gives up volumes that have not been mounted since the sweep before, and removes
// those whose pod the kubelet has forgotten.
func (d *Driver) sweep(logger klog.Logger) {
	for _, each := range d.mounts.all() {
		// A call of the kubelet for a volume that is as it should be is not turned away.
		if fine, err := isInUse(each); err == nil && fine {
			continue
		}
		if !d.inFlight.start(each.VolumeID) {
			continue // the kubelet looks after it
		}
		if err := recovery.Do(func() error { return d.sweepOne(logger, each) }); err != nil {
			logger.Error(err, "Volume not swept", logVolumeID, each.VolumeID)
		}
		d.inFlight.finish(each.VolumeID)
	}
}

// isInUse tells whether a volume is mounted and the kubelet knows of it.
func isInUse(each mount) (bool, error) {
	exists, err := tmpfs.Exists(each.Target)
	return exists && !isForgotten(each.Target), err
}

func (d *Driver) sweepOne(logger klog.Logger, each mount) error {
	exists, err := tmpfs.Exists(each.Target)
	if err != nil {
		return err
	}
	if exists && !isForgotten(each.Target) {
		return nil
	}
	if !exists && !isForgotten(each.Target) && d.mounts.putOff(each.VolumeID) {
		return nil
	}
	if err := d.checkTarget(each.Target); err != nil {
		return err
	}
	logger.Info("Volume swept: nobody will ask for its removal", logVolumeID, each.VolumeID, "mounted", exists)
	if exists {
		if err := d.mounts.remove(each.VolumeID, each.Target); err != nil {
			return err
		}
	} else {
		d.mounts.drop(each.VolumeID)
	}
	d.provider.Close(each.VolumeID)
	return nil
}

// putOff reports whether the next sweep will do for a volume that was unmounted. The
// kubelet knows it and mounts it anew at its next call, 90 s later at the latest; until
// then, containers go by the token that would be revoked.
func (m *Mounts) putOff(volumeID string) bool {
	volume := m.find(volumeID)
	return volume != nil && !volume.missed.Swap(true)
}

// isForgotten tells whether the kubelet has lost a volume. It writes vol_data.json
// beside the target before the first publish, reads it to know what to unpublish,
// and removes it after that.
func isForgotten(target string) bool {
	_, err := os.Lstat(filepath.Join(filepath.Dir(target), "vol_data.json"))
	return errors.Is(err, fs.ErrNotExist)
}

// IsMounted reports whether a volume that is known is still mounted.
func (m *Mounts) IsMounted(volumeID string) bool {
	volume := m.find(volumeID)
	if volume == nil {
		return false
	}
	exists, err := tmpfs.Exists(volume.mount.Target)
	return err != nil || exists // in doubt, it is
}
