package tmpfs

import (
	"fmt"
	"slices"
	"strings"

	mount "k8s.io/mount-utils"
)

// Mounted returns the sorted paths below a directory at which the mount table has a volume of
// this Mounter. The directory is an absolute path without links.
//
// It parses the whole table, in time and memory in proportion to it. Linux allows 100,000
// mounts in a mount namespace (fs.mount-max). So call it only when the driver starts.
func (m *Mounter) Mounted(directory string) ([]string, error) {
	return m.mountedIn("/proc/self/mountinfo", directory)
}

func (m *Mounter) mountedIn(table, directory string) ([]string, error) {
	mounts, err := mount.ParseMountInfo(table)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	var targets []string
	for _, each := range mounts {
		// A container's subPath is a mount of another root.
		if each.FsType == "tmpfs" && each.Source == m.source && each.Root == "/" && strings.HasPrefix(each.MountPoint, directory+"/") {
			targets = append(targets, strings.Clone(each.MountPoint)) // or it retains the whole table
		}
	}
	slices.Sort(targets)
	return slices.Compact(targets), nil
}
