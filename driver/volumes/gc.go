package volumes

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/vaultmount/vaultmount/provider/recovery"
)

// collectInterval is the time between two collections of orphans: volumes that nobody will
// ask to remove. They come of what the kubelet forgets, which is rare.
const collectInterval = 10 * time.Minute

// CollectOrphans removes orphans now and from time to time, until ctx ends.
func (m *Manager) CollectOrphans(ctx context.Context) {
	wait.UntilWithContext(ctx, func(context.Context) { m.collect() }, collectInterval)
}

// collect drops volumes that have not been mounted since the collection before, and removes
// those that the kubelet has forgotten.
func (m *Manager) collect() {
	for _, e := range m.all() {
		m.mutex.Lock()
		v, silent := e.volume, !e.called
		e.called = false
		m.mutex.Unlock()
		// A call of the kubelet for a volume that is as it should be is not rejected.
		if mounted, err := m.IsMounted(v.Target); err == nil && mounted && !isOrphaned(v.Target, silent) {
			continue
		}
		unlock, ok := m.Lock(v.ID)
		if !ok {
			continue // the kubelet is about to use it
		}
		if err := recovery.Do(func() error { return m.collectOne(e, v, silent) }); err != nil {
			m.config.Logger.Error(err, "Orphaned volume not removed", logVolumeID, v.ID)
		}
		unlock()
	}
}

func (m *Manager) collectOne(e *entry, v Volume, silent bool) error {
	mounted, err := m.IsMounted(v.Target)
	if err != nil {
		return err
	}
	forgotten := isOrphaned(v.Target, silent)
	if mounted && !forgotten || !mounted && !forgotten && m.isFirstMiss(e) {
		return nil
	}
	if err := m.CheckTarget(v.Target); err != nil {
		return err
	}
	m.config.Logger.Info("Removing an orphaned volume", logVolumeID, v.ID, "mounted", mounted)
	if mounted {
		return m.Unpublish(v.ID, v.Target)
	}
	m.drop(e)
	return nil
}

// isFirstMiss reports whether the next collection will do for a volume that was unmounted.
// The kubelet knows the volume, and mounts it again at its next call, 90 s later at the
// latest. Until then, containers use the token that would be revoked.
func (m *Manager) isFirstMiss(e *entry) bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	first := !e.missed
	e.missed = true
	return first
}

// isOrphaned reports whether the kubelet has lost a volume. To unmount one below a running
// pod is worse than to keep one too long, so one sign is not enough:
//
//   - vol_data.json, which the kubelet writes beside the target before the first publish
//     and removes after the last call, is gone. The file is the kubelet's own, and the next
//     version may name it otherwise.
//   - The kubelet has not published the volume again since the collection before, as CSI
//     has it do for a running pod (requiresRepublish).
//   - The pod has no other volume: those of a running pod are there, its token above all.
//
// A target without a directory around it is forgotten whatever else there is.
func isOrphaned(target string, silent bool) bool {
	if !isGone(filepath.Join(filepath.Dir(target), "vol_data.json")) {
		return false
	}
	return isGone(filepath.Dir(target)) || silent && !hasOtherVolumes(target)
}

func isGone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// hasOtherVolumes reads the pod's directory: volumes/<plugin>/<name>. In doubt there are
// some.
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
		for _, each := range entries {
			if filepath.Join(volumes, plugin.Name(), each.Name()) != own {
				return true
			}
		}
	}
	return false
}
