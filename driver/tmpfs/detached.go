package tmpfs

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

type tmpfsOptions struct {
	source    string // the device in the mount table
	sizeBytes int64
	inodes    int
	mode      string // octal
	noswap    bool
}

// detachedMount is a mount that no path leads to. The kernel removes it when its descriptor
// closes, and the file system with its last mount.
type detachedMount struct{ fd int }

func newDetachedMount(o tmpfsOptions) (*detachedMount, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a tmpfs context: %w", err)
	}
	defer unix.Close(context)
	for _, option := range [][2]string{
		{"source", o.source},
		{"size", strconv.FormatInt(o.sizeBytes, 10)},
		{"nr_inodes", strconv.Itoa(o.inodes)},
		{"mode", o.mode},
	} {
		if err := unix.FsconfigSetString(context, option[0], option[1]); err != nil {
			return nil, fmt.Errorf("set tmpfs option %s=%s: %w", option[0], option[1], err)
		}
	}
	if o.noswap {
		if err := unix.FsconfigSetFlag(context, "noswap"); err != nil {
			return nil, fmt.Errorf("set tmpfs option noswap: %w", err)
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("create a tmpfs: %w", err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return &detachedMount{fd}, nil
}

// cloneMount makes another mount of the volume at target. The error is ErrNotMounted if
// there is none: the kernel would clone the directory on disk.
func cloneMount(target string) (*detachedMount, error) {
	fd, err := openVolume(target)
	if err != nil {
		return nil, fmt.Errorf("open the volume: %w", err)
	}
	defer unix.Close(fd)
	return cloneDescriptor(fd)
}

func cloneDescriptor(fd int) (*detachedMount, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone the mount: %w", err)
	}
	return &detachedMount{clone}, nil
}

func (d *detachedMount) setReadOnly(readOnly bool) error {
	attributes := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if readOnly {
		attributes = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	if err := unix.MountSetattr(d.fd, "", unix.AT_EMPTY_PATH, &attributes); err != nil {
		return fmt.Errorf("set the mount read-only=%t: %w", readOnly, err)
	}
	return nil
}

func (d *detachedMount) attach(target string) error {
	if err := unix.MoveMount(d.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the mount to the target path: %w", err)
	}
	return nil
}

// Close removes the mount, unless it is attached.
func (d *detachedMount) Close() {
	_ = unix.Close(d.fd) // cannot fail for a descriptor of this process
}
