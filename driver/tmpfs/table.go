package tmpfs

import (
	"fmt"
	"slices"
	"strings"

	mount "k8s.io/mount-utils"
)

// Mounted returns the paths below a directory at which the mount table has a volume with
// the source of this Mounter, in order. The directory is an absolute path without links.
//
// It reads and parses the whole table, in time and memory in proportion to it. Linux
// allows 100,000 mounts in a mount namespace (fs.mount-max). README.md says what that
// costs. So it is for the start of the driver alone.
func (m *Mounter) Mounted(below string) ([]string, error) {
	return m.mountedIn("/proc/self/mountinfo", below)
}

func (m *Mounter) mountedIn(table, below string) ([]string, error) {
	all, err := mount.ParseMountInfo(table)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var targets []string
	for _, each := range all {
		// A container's subPath is a mount of a directory of the volume.
		if each.FsType == "tmpfs" && each.Source == m.source && each.Root == "/" && strings.HasPrefix(each.MountPoint, below+"/") {
			targets = append(targets, strings.Clone(each.MountPoint)) // not the whole table
		}
	}
	slices.Sort(targets)
	return slices.Compact(targets), nil
}
