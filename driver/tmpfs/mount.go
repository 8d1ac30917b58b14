package tmpfs

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

type options struct {
	source    string // what the mount table shows as the device
	sizeBytes int64
	inodes    int
	mode      string // octal
	noswap    bool
}

// detached is a mount that no path leads to, held by its descriptor: when the
// descriptor closes, the mount goes, and the file system with its last mount.
type detached struct {
	fd int
}

func newDetached(o options) (*detached, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a tmpfs context: %w", err)
	}
	defer unix.Close(context)
	settings := [][2]string{
		{"source", o.source},
		{"size", strconv.FormatInt(o.sizeBytes, 10)},
		{"nr_inodes", strconv.Itoa(o.inodes)},
		{"mode", o.mode},
	}
	for _, s := range settings {
		if err := unix.FsconfigSetString(context, s[0], s[1]); err != nil {
			return nil, fmt.Errorf("set tmpfs option %s=%s: %w", s[0], s[1], err)
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
	return &detached{fd: fd}, nil
}

// openWritable clones the mount at target and lifts read-only from the clone
// alone. The other mounts of the volume stay as they are.
func openWritable(target string) (*detached, error) {
	view, err := openTree(target)
	if err != nil {
		return nil, err
	}
	if err := view.setReadOnly(false); err != nil {
		view.Close()
		return nil, err
	}
	return view, nil
}

// openTree clones the volume at target. The error is ErrUnmounted where there is
// none: the kernel would clone the directory on disk.
func openTree(target string) (*detached, error) {
	fd, err := openVolume(target)
	if err != nil {
		return nil, fmt.Errorf("open the volume: %w", err)
	}
	defer unix.Close(fd)
	return cloneMount(fd)
}

// clone makes another mount of one that has been attached.
func (d *detached) clone() (*detached, error) { return cloneMount(d.fd) }

func cloneMount(fd int) (*detached, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone the mount: %w", err)
	}
	return &detached{fd: clone}, nil
}

func (d *detached) setReadOnly(readOnly bool) error {
	attributes := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if readOnly {
		attributes = unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	}
	if err := unix.MountSetattr(d.fd, "", unix.AT_EMPTY_PATH, &attributes); err != nil {
		return fmt.Errorf("set the mount read-only=%t: %w", readOnly, err)
	}
	return nil
}

// growInodes raises the number of inodes that the volume may hold, for all its mounts.
func (d *detached) growInodes(inodes int) error {
	context, err := unix.Fspick(d.fd, "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open the tmpfs for a change: %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigSetString(context, "nr_inodes", strconv.Itoa(inodes)); err != nil {
		return fmt.Errorf("set tmpfs option nr_inodes=%d: %w", inodes, err)
	}
	if err := unix.FsconfigReconfigure(context); err != nil {
		return fmt.Errorf("raise the number of inodes to %d: %w", inodes, err)
	}
	return nil
}

func (d *detached) attach(target string) error {
	if err := unix.MoveMount(d.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the volume to the target path: %w", err)
	}
	return nil
}

// root opens the top directory. Nothing below follows a path out of it.
func (d *detached) root() (*os.Root, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", d.fd))
	if err != nil {
		return nil, fmt.Errorf("open the volume's directory: %w", err)
	}
	return root, nil
}

// Close lets the mount go, unless it is attached.
func (d *detached) Close() {
	_ = unix.Close(d.fd) // which cannot fail for a descriptor that is ours
}
