// Package tmpfs is one volume in memory: a tmpfs on the target path that holds
// one complete set of files, replaced as a whole or not at all.
//
// A volume is filled before it is attached, so a target path is either no mount
// or a mount with all its files, whenever the process is killed. It is attached
// read-only, and this package changes it through a private writable view. A container
// may be able to write there nevertheless, so the content of a volume is hostile: the
// package never reads it back, opens no file of it, follows no link, and crosses no
// mount. It knows nothing of Vault, templates or CSI.
//
// README.md says why it calls the kernel and not k8s.io/mount-utils.
package tmpfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrFull says that a set of files does not fit into the volume's size.
var ErrFull = errors.New("the files do not fit into the volume")

// ErrUnmounted says that there is no volume at the target path any more.
var ErrUnmounted = errors.New("somebody has unmounted the volume; the kubelet's next call mounts it anew, and containers see that when they start again")

// ErrOccupied says that something stands at the target path that is not a volume.
var ErrOccupied = errors.New("something else is there already; remove it")

const (
	volumeMode  = "0755"
	privateMode = "0700"
)

// File is one file of a set.
type File struct {
	// Path is relative, clean and has no part that starts with "..".
	Path    string
	Content []byte
	// Perms are permission bits as chmod(2) takes them.
	Perms uint32
	// Owner is nil for that of the set.
	Owner *Owner
}

// Owner is a user and a group by their ids.
type Owner struct{ UID, GID int }

// Set is all that a volume holds at one time.
type Set struct {
	UID, GID int
	Files    []File
}

func (s Set) ownerOf(file File) Owner {
	if file.Owner != nil {
		return *file.Owner
	}
	return Owner{UID: s.UID, GID: s.GID}
}

// Mounter mounts volumes. It has no state but what the kernel can do, and may
// be used concurrently for different targets; calls for one target are the
// caller's to serialise.
type Mounter struct {
	source string
	noswap bool
}

// NewMounter asks the kernel for what a volume needs: the mount API with
// mount_setattr(2), Linux 5.12, as an error if it is missing; and tmpfs's
// noswap, Linux 6.4 and not in a user namespace, as a property of the Mounter. The
// mount table shows source, the name of the driver, as the device of its volumes.
func NewMounter(source string) (*Mounter, error) {
	mount, err := newDetached(options{source: source, sizeBytes: int64(os.Getpagesize()), inodes: 4, mode: volumeMode})
	if err != nil {
		return nil, fmt.Errorf("mount a tmpfs apart from the file tree (needs Linux 5.12 and CAP_SYS_ADMIN): %w", err)
	}
	defer mount.Close()
	if err := mount.setReadOnly(true); err != nil {
		return nil, fmt.Errorf("make a mount read-only by mount_setattr (needs Linux 5.12): %w", err)
	}
	swapless, err := newDetached(options{source: source, sizeBytes: int64(os.Getpagesize()), inodes: 4, mode: volumeMode, noswap: true})
	if err != nil {
		// Older kernels and user namespaces refuse the option.
		return &Mounter{source: source}, nil
	}
	swapless.Close()
	return &Mounter{source: source, noswap: true}, nil
}

// NoSwap reports whether the kernel keeps volumes out of swap.
func (m *Mounter) NoSwap() bool { return m.noswap }

// Replace swaps the files of the volume at target for set, atomically for a
// reader that opens them through "..data", and returns what it wrote. After an error
// the volume holds what it held before. The error is ErrUnmounted where there is none.
func (m *Mounter) Replace(target string, set Set) (Written, error) {
	view, err := openWritable(target)
	if err != nil {
		return nil, err
	}
	defer view.Close()
	if err := view.replace(set); err != nil {
		return nil, err
	}
	return recordOf(set), nil
}

// Grow raises the number of inodes that the volume at target may hold, for a set with
// more files than before.
func (m *Mounter) Grow(target string, inodes int) error {
	view, err := openTree(target)
	if err != nil {
		return err
	}
	defer view.Close()
	return view.growInodes(inodes)
}

// Exists reports whether target is a volume; a link to one is none. It reads no
// mount table: the kubelet asks for every volume of the node each minute.
func Exists(target string) (bool, error) {
	fd, err := openVolume(target)
	if errors.Is(err, ErrUnmounted) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	unix.Close(fd)
	return true, nil
}

// openVolume opens the top directory of the volume at target, for calls of the
// kernel that must be about that and nothing else: what is mounted there may change
// from one look by the path to the next.
func openVolume(target string) (fd int, err error) {
	fd, err = unix.Open(target, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, ErrUnmounted
	}
	if err != nil {
		return -1, fmt.Errorf("look for a mount on the target path: %w", err)
	}
	is, err := isVolume(fd)
	if err == nil && !is {
		err = ErrUnmounted
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// isVolume reports whether a descriptor is the top directory of a mounted tmpfs.
func isVolume(fd int) (bool, error) {
	// Linux tells it since 5.8, and volumes need 5.12.
	var about unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE, &about); err != nil {
		return false, fmt.Errorf("look for a mount on the target path: %w", err)
	}
	if about.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return false, nil
	}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(fd, &stat); err != nil {
		return false, fmt.Errorf("read the file system type of the target path: %w", err)
	}
	if stat.Type != unix.TMPFS_MAGIC {
		return false, errors.New("the target path is a mount of something else than tmpfs")
	}
	return true, nil
}

// Remove unmounts the volume at target and removes the directory. It succeeds
// when there is neither: after a reboot the kubelet asks for volumes that went
// with the memory they were in. It never removes a file.
func Remove(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		// A process of the node looks into the volume (the containers are gone by
		// now); the mount goes when it lets go, and the pod need not wait for it.
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	// EINVAL: the path is not a mount.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount target path: %w", err)
	}
	return removeDirectory(target)
}
