package volumes

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// TargetError is a target path at which no volume can be.
type TargetError struct{ Problem string }

// Error implements error.
func (e *TargetError) Error() string { return "target_path: " + e.Problem }

func targetError(format string, arguments ...any) error {
	return &TargetError{Problem: fmt.Sprintf(format, arguments...)}
}

// quote shows enough of a text to recognise it.
func quote(text string) string {
	const enough = 96 // of any length
	return fmt.Sprintf("%q", limits.Truncate(text, enough))
}

func (m *Manager) podsDirectory() string { return filepath.Join(m.config.KubeletRoot, "pods") }

// CheckTarget keeps mounts and removals within the kubelet's directory of pods. The path
// comes over a socket that only root reaches, but what is done with it is done as root as
// well. The error is a TargetError unless the kernel fails.
func (m *Manager) CheckTarget(target string) error {
	_, leave, err := m.openTarget(target)
	if err == nil {
		leave()
	}
	return err
}

// openTarget checks a target and opens the directory around it. It returns a path to the
// target by that descriptor, until leave: a link that takes the place of a directory
// meanwhile leads nowhere else. Where the directory is gone, as after the kubelet's last
// call, the path is the target's.
func (m *Manager) openTarget(target string) (path string, leave func(), err error) {
	pods := m.podsDirectory()
	if filepath.Clean(target) != target || !strings.HasPrefix(target, pods+"/") {
		return "", nil, targetError("%s is not below %s; is --kubelet-root the kubelet's --root-dir?", quote(target), pods)
	}
	// The root itself may be a link, nothing below it.
	top, err := unix.Open(pods, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(target, err)
	}
	defer unix.Close(top)
	below := strings.TrimPrefix(strings.TrimPrefix(filepath.Dir(target), pods), "/")
	parent, err := unix.Openat2(top, cmp.Or(below, "."), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return gone(target, err)
	}
	leave = func() { _ = unix.Close(parent) }
	// A link to a volume, or to any other tmpfs, is not taken for a volume.
	var stat unix.Stat_t
	err = unix.Fstatat(parent, filepath.Base(target), &stat, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		leave()
		return gone(target, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", parent, filepath.Base(target)), leave, nil
}

// gone is for a target whose directory cannot be opened.
func gone(target string, err error) (string, func(), error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target, func() {}, nil
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		return "", nil, targetError("%s is or is below a symbolic link; remove the link", quote(target))
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.ENOTDIR):
		return "", nil, targetError("%s cannot be a path: %v", quote(target), err)
	}
	return "", nil, fmt.Errorf("open the directory around the target path: %w", err)
}
