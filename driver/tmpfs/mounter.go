// Package tmpfs mounts one volume as one tmpfs, which holds one payload. It replaces the
// payload as a whole or not at all, and reads usage and mount table.
//
// A volume is filled before it is attached: a target path is no mount, or a mount with all
// its files. It is attached read-only, and this package writes through a private writable
// clone. A container may be able to write there nevertheless, so the content is hostile.
// The package never reads it back, opens no file of it, follows no link and crosses no mount.
//
// It never talks to Vault or Kubernetes, and imports no other package of this module.
package tmpfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrFull is a payload that does not fit into the size or the inodes of the volume.
	ErrFull = errors.New("the files do not fit into the volume")

	// ErrNotMounted is a target path without a volume.
	ErrNotMounted = errors.New("the volume was unmounted; the kubelet's next call mounts it again, and containers see it after a restart")

	// ErrOccupied is a target path with something else than a volume.
	ErrOccupied = errors.New("the target path is not an empty directory; remove what is there")
)

const volumeMode = "0755"

// Mounter mounts volumes. Its methods may run concurrently for different target paths.
type Mounter struct {
	source string
	noswap bool
}

// NewMounter returns a Mounter whose mounts show source, the name of the driver, as their
// device in the mount table. The error says which feature the kernel lacks. It uses noswap
// of tmpfs only where the kernel has it: Linux 6.4, outside user namespaces.
func NewMounter(source string) (*Mounter, error) {
	m := &Mounter{source: source, noswap: true}
	probe := func() (*detachedMount, error) { return m.newMount(volumeMode, int64(os.Getpagesize()), 4) }
	mount, err := probe()
	if err != nil {
		m.noswap = false
		mount, err = probe()
	}
	if err != nil {
		return nil, fmt.Errorf("create a detached tmpfs mount (needs Linux 5.12 and CAP_SYS_ADMIN): %w", err)
	}
	defer mount.Close()
	if err := mount.setReadOnly(true); err != nil {
		return nil, fmt.Errorf("make a mount read-only by mount_setattr (needs Linux 5.12): %w", err)
	}
	return m, nil
}

// NoSwap reports whether the kernel keeps volumes out of swap.
func (m *Mounter) NoSwap() bool { return m.noswap }

// Create mounts a volume of at most sizeBytes at target, with the payload in it. The size
// must hold the payload twice, because old and new files of a rotation exist at the same
// time; else the error is ErrFull. After an error there is neither a mount nor a directory.
func (m *Mounter) Create(target string, sizeBytes int64, payload Payload) error {
	if need := 2 * payload.pageBytes(); need > sizeBytes {
		return fmt.Errorf("%w: they need %s (files are kept twice), size is %s; set size: %s",
			ErrFull, formatBytes(need), formatBytes(sizeBytes), quantity(need))
	}
	mount, err := m.newMount(volumeMode, sizeBytes, payload.Inodes())
	if err != nil {
		return err
	}
	defer mount.Close()
	if err := makeTarget(target); err != nil {
		return err
	}
	err = mount.fill(payload)
	if err == nil {
		err = mount.setReadOnly(true)
	}
	if err == nil {
		err = mount.attach(target)
	}
	if err != nil {
		return errors.Join(err, removeTarget(target))
	}
	return nil
}

// fill writes the files while this process starts no other. A child process holds the open
// files of its parent until it runs its own program, and Linux makes no mount read-only that
// has a file open for writing.
func (d *detachedMount) fill(payload Payload) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	top, err := d.openTop()
	if err != nil {
		return err
	}
	defer top.Close()
	return top.write(payload)
}

// Replace swaps the files of the volume at target for the payload, atomically for a reader
// that opens them through "..data". After an error the volume holds its old files. The error
// is ErrNotMounted if there is no volume.
func (m *Mounter) Replace(target string, payload Payload) error {
	clone, err := cloneMount(target)
	if err != nil {
		return err
	}
	defer clone.Close()
	// The clone alone becomes writable.
	if err := clone.setReadOnly(false); err != nil {
		return err
	}
	top, err := clone.openTop()
	if err != nil {
		return err
	}
	defer top.Close()
	return top.replace(payload)
}

// Grow raises the number of inodes of the volume at target, for a payload with more files.
func (m *Mounter) Grow(target string, inodes int) error {
	mount, err := cloneMount(target)
	if err != nil {
		return err
	}
	defer mount.Close()
	context, err := unix.Fspick(mount.fd, "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open the tmpfs to reconfigure it: %w", err)
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

// Remove unmounts the volume at target and removes the directory. It succeeds if there is
// neither: after a reboot the kubelet unpublishes volumes that no longer exist. It never
// removes a file.
func Remove(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		// The containers have ended. A process of the node that still uses the volume must
		// not keep the pod in Terminating.
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	// EINVAL: the path is not a mount.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount the target path: %w", err)
	}
	return removeTarget(target)
}

// Exists reports whether target is a volume. A link to a volume is none. It reads no mount
// table, because the kubelet asks for each volume each minute.
func Exists(target string) (bool, error) {
	fd, err := openVolume(target)
	if errors.Is(err, ErrNotMounted) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	unix.Close(fd)
	return true, nil
}

// openVolume opens the top directory of the volume at target. What is mounted at a path can
// change between two system calls, so all further calls use the descriptor.
func openVolume(target string) (fd int, err error) {
	fd, err = unix.Open(target, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, ErrNotMounted
	}
	if err != nil {
		return -1, fmt.Errorf("open the target path: %w", err)
	}
	var status unix.Statx_t
	var fileSystem unix.Statfs_t
	err = errors.Join(unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &status), unix.Fstatfs(fd, &fileSystem))
	switch {
	case err != nil:
		err = fmt.Errorf("check the target path for a mount: %w", err)
	case status.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0:
		err = ErrNotMounted
	case fileSystem.Type != unix.TMPFS_MAGIC:
		err = errors.New("the target path is a mount of another file system than tmpfs")
	default:
		return fd, nil
	}
	unix.Close(fd)
	return -1, err
}

// makeTarget accepts an empty directory, which some kubelets create. A mount would hide the
// files of any other.
func makeTarget(target string) error {
	err := removeTarget(target)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOTDIR) {
		return ErrOccupied
	}
	if err != nil {
		return err
	}
	if err := unix.Mkdir(target, 0o750); err != nil {
		return fmt.Errorf("create the target path: %w", err)
	}
	return nil
}

// removeTarget calls rmdir, because os.Remove would delete a file as well.
func removeTarget(target string) error {
	if err := unix.Rmdir(target); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the target path: %w", err)
	}
	return nil
}

// detachedMount is a mount that no path leads to. The kernel removes it when its descriptor
// closes, and the file system with its last mount.
type detachedMount struct{ fd int }

// newMount creates a tmpfs. Mode is octal.
func (m *Mounter) newMount(mode string, sizeBytes int64, inodes int) (*detachedMount, error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open a tmpfs context: %w", err)
	}
	defer unix.Close(context)
	for _, option := range [][2]string{
		{"source", m.source}, {"size", strconv.FormatInt(sizeBytes, 10)}, {"nr_inodes", strconv.Itoa(inodes)}, {"mode", mode},
	} {
		if err := unix.FsconfigSetString(context, option[0], option[1]); err != nil {
			return nil, fmt.Errorf("set tmpfs option %s=%s: %w", option[0], option[1], err)
		}
	}
	if m.noswap {
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
