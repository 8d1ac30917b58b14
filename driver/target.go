package driver

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// checkTarget keeps mounts and removals within the kubelet's directory of pods.
// The string comes over a socket that only root reaches, but what is done with
// it is done as root as well.
func (d *NodeServer) checkTarget(target string) error {
	pods := filepath.Join(d.config.KubeletRoot, "pods")
	if filepath.Clean(target) != target || !strings.HasPrefix(target, pods+"/") {
		return argument("target_path", fmt.Sprintf("%s is not below %s; is --kubelet-root the kubelet's --root-dir?", quote(target), pods))
	}
	parent := filepath.Dir(target)
	if isPlain(pods, strings.TrimPrefix(parent, pods)) {
		return checkNoLink(target)
	}
	real, err := filepath.EvalSymlinks(parent)
	if errors.Is(err, fs.ErrNotExist) {
		// The kubelet removes the parent after the last call; there is nothing to
		// unpublish then, and nothing can be mounted.
		return nil
	}
	if isNoPath(err) {
		return argument("target_path", fmt.Sprintf("%s cannot be a path: %v", quote(target), errors.Unwrap(err)))
	}
	if err != nil {
		return fmt.Errorf("resolve the parent of the target path: %w", err)
	}
	// The root itself may be a link, nothing below it.
	realPods, err := filepath.EvalSymlinks(pods)
	if err != nil {
		return fmt.Errorf("resolve the kubelet's directory of pods: %w", err)
	}
	if real != realPods+strings.TrimPrefix(parent, pods) {
		return argument("target_path", fmt.Sprintf("a symbolic link leads from %s out to %s", quote(parent), quote(real)))
	}
	return checkNoLink(target)
}

// at opens the directory around a target that was checked, and returns a path to the
// target by that descriptor, until leave: a link that takes the place of a directory after
// the check leads nowhere else. Where the directory is gone, the path is the target's.
func (d *NodeServer) at(target string) (path string, leave func(), err error) {
	pods := filepath.Join(d.config.KubeletRoot, "pods")
	// The root itself may be a link.
	top, err := unix.Open(pods, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(top)
		var parent int
		below := strings.TrimPrefix(strings.TrimPrefix(filepath.Dir(target), pods), "/")
		if parent, err = openBeneath(top, below); err == nil {
			return fmt.Sprintf("/proc/self/fd/%d/%s", parent, filepath.Base(target)), func() { _ = unix.Close(parent) }, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return target, func() {}, nil
	}
	return "", nil, fmt.Errorf("open the directory around the target path: %w", err)
}

func openBeneath(top int, below string) (int, error) {
	return unix.Openat2(top, cmp.Or(below, "."), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// isPlain asks the kernel whether a directory is there below another without a
// link on the way. If it is not, or the kernel does not say, a closer look tells why.
func isPlain(top, below string) bool {
	// The root itself may be a link.
	fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	found, err := openBeneath(fd, strings.TrimPrefix(below, "/"))
	if err != nil {
		return false
	}
	_ = unix.Close(found) // a descriptor of ours
	return true
}

// checkNoLink keeps a link to a volume, or to any other tmpfs, from being taken
// for a volume that is published already.
func checkNoLink(target string) error {
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if isNoPath(err) {
		return argument("target_path", fmt.Sprintf("%s cannot be a path: %v", quote(target), errors.Unwrap(err)))
	}
	if err != nil {
		return fmt.Errorf("look at the target path: %w", err)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return argument("target_path", fmt.Sprintf("%s is a symbolic link, and the driver makes a directory there; remove the link", quote(target)))
	}
	return nil
}

// isNoPath tells a string that no file can have as its path, for a zero byte in it or
// for its length.
func isNoPath(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENAMETOOLONG)
}

// volumeName is the volume's name in the pod: targets look like
// <root>/pods/<uid>/volumes/kubernetes.io~csi/<name>/mount.
func volumeName(target string) string {
	return filepath.Base(filepath.Dir(target))
}
