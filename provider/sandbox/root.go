package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// programName is the worker's program in its root directory, until it runs.
const programName = "/render-worker"

// enterRoot gives the calling thread a root that holds only the program, in a mount
// namespace of its own. The node's mounts are gone there, so a worker keeps none busy.
func enterRoot(program string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter a mount namespace: %w", err)
	}
	// Else the node would see what is unmounted here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const directory = "/proc" // any that is not the root; all containers have it
	if err := unix.Mount("render-worker", directory, "tmpfs", rootFlags, "size=4096,nr_inodes=2,mode=0555"); err != nil {
		return fmt.Errorf("mount an empty root: %w", err)
	}
	if err := unix.Mknod(directory+programName, unix.S_IFREG, 0); err != nil {
		return fmt.Errorf("make a file for the program: %w", err)
	}
	if err := unix.Mount(program, directory+programName, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("open the program %s: %w", program, err)
	}
	if err := unix.Chdir(directory); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	// The old root goes on top of the new one, which saves a directory for it (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to the empty root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the old root: %w", err)
	}
	return unix.Chdir("/")
}

const rootFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// emptyRoot removes the program, which runs by now, and makes the root read-only.
func emptyRoot() error {
	return errors.Join(
		unix.Unmount(programName, unix.MNT_DETACH),
		unix.Unlink(programName),
		unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|rootFlags, ""),
	)
}

// dropPrivileges takes from the calling thread what its child would inherit beyond the
// identity that it gets.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("clear inheritable capabilities: %w", err)
	}
	return nil
}
