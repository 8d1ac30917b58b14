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

// CollectOrphans sweeps now and from time to time, until ctx ends.
func (d *NodeServer) CollectOrphans(ctx context.Context) {
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
// those that the kubelet has forgotten.
func (d *NodeServer) sweep(logger klog.Logger) {
	for _, each := range d.mounts.all() {
		silent := d.mounts.isSilent(each.VolumeID)
		// A call of the kubelet for a volume that is as it should be is not turned away.
		if fine, err := isInUse(each, silent); err == nil && fine {
			continue
		}
		if !d.inFlight.start(each.VolumeID) {
			continue // the kubelet looks after it
		}
		if err := recovery.Do(func() error { return d.sweepOne(logger, each, silent) }); err != nil {
			logger.Error(err, "Volume not swept", logVolumeID, each.VolumeID)
		}
		d.inFlight.finish(each.VolumeID)
	}
}

// isInUse tells whether a volume is mounted and the kubelet knows of it.
func isInUse(each mount, silent bool) (bool, error) {
	exists, err := tmpfs.Exists(each.Target)
	return exists && !isForgotten(each.Target, silent), err
}

func (d *NodeServer) sweepOne(logger klog.Logger, each mount, silent bool) error {
	exists, err := tmpfs.Exists(each.Target)
	if err != nil {
		return err
	}
	forgotten := isForgotten(each.Target, silent)
	if exists && !forgotten {
		return nil
	}
	if !exists && !forgotten && d.mounts.putOff(each.VolumeID) {
		return nil
	}
	if err := d.checkTarget(each.Target); err != nil {
		return err
	}
	logger.Info("Volume swept: nobody will ask for its removal", logVolumeID, each.VolumeID, "mounted", exists)
	if exists {
		if err := d.remove(each.VolumeID, each.Target); err != nil {
			return err
		}
	} else {
		d.mounts.drop(each.VolumeID)
	}
	d.provider.Close(each.VolumeID)
	return nil
}

// isSilent reports whether the kubelet has not asked for a volume since the sweep before,
// and begins again.
func (m *Mounts) isSilent(volumeID string) bool {
	volume := m.find(volumeID)
	return volume != nil && !volume.called.Swap(false)
}

// putOff reports whether the next sweep will do for a volume that was unmounted. The
// kubelet knows it and mounts it anew at its next call, 90 s later at the latest; until
// then, containers go by the token that would be revoked.
func (m *Mounts) putOff(volumeID string) bool {
	volume := m.find(volumeID)
	return volume != nil && !volume.missed.Swap(true)
}

// isForgotten tells whether the kubelet has lost a volume. To unmount one below a running
// pod is worse than to keep one too long, so one sign is not enough:
//
//   - vol_data.json, which the kubelet writes beside the target before the first publish
//     and removes after the last call, is gone. The file is the kubelet's own, and the next
//     version may name it otherwise.
//   - The kubelet has not published the volume again since the sweep before, as CSI has it
//     do for a running pod (requiresRepublish).
//   - The pod has no other volume: those of a running pod are there, its token above all.
//
// A target without a directory around it is forgotten whatever else there is.
func isForgotten(target string, silent bool) bool {
	if !isGone(filepath.Join(filepath.Dir(target), "vol_data.json")) {
		return false
	}
	return isGone(filepath.Dir(target)) || silent && !hasOtherVolumes(target)
}

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// hasOtherVolumes looks into the pod's directory: volumes/<plugin>/<name>. In doubt there
// are some.
func hasOtherVolumes(target string) bool {
	own := filepath.Dir(target)
	volumes := filepath.Dir(filepath.Dir(own))
	plugins, err := os.ReadDir(volumes)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	for _, plugin := range plugins {
		entries, err := os.ReadDir(filepath.Join(volumes, plugin.Name()))
		if err != nil {
			return true
		}
		for _, entry := range entries {
			if filepath.Join(volumes, plugin.Name(), entry.Name()) != own {
				return true
			}
		}
	}
	return false
}

// IsMounted reports whether a volume that is known is still mounted.
func (m *Mounts) IsMounted(volumeID string) bool {
	m.mutex.Lock()
	volume := m.volumes[volumeID]
	if volume == nil {
		m.mutex.Unlock()
		return false
	}
	target := volume.mount.Target
	m.mutex.Unlock()
	exists, err := tmpfs.Exists(target)
	return err != nil || exists // in doubt, it is
}
