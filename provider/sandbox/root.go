package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// programName is what the worker's program is called in its root directory, as
// long as it is there.
const programName = "/render-worker"

// onThread runs f in a goroutine on a thread of its own, which ends with f: what f
// does to the thread concerns nothing else. It does not wait for f.
func onThread(f func()) {
	go func() {
		runtime.LockOSThread()
		// A goroutine that ends without unlocking takes its thread along. The main
		// thread never ends, and it is the one that /proc/self shows: not that one.
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		started := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(started)
			f()
		}()
		<-started
		runtime.UnlockOSThread()
	}()
}

// enterRoot gives the calling thread a file system that holds the program alone,
// in a mount namespace of its own. The mounts of the node are gone from there, so
// none of them is kept busy by a worker.
func enterRoot(path string) error {
	// Before the thread leaves the namespace that the program is in.
	program, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open the program %s: %w", path, err)
	}
	defer unix.Close(program)
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter a mount namespace: %w", err)
	}
	// Else the node would see what is unmounted here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := newRoot()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	// Any directory does that is not the root.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount an empty root: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter the empty root: %w", err)
	}
	if err := unix.Mknod("."+programName, unix.S_IFREG, 0); err != nil {
		return fmt.Errorf("make a file for the program: %w", err)
	}
	if err := unix.MoveMount(program, "", unix.AT_FDCWD, "."+programName, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the program: %w", err)
	}
	return pivot()
}

func newRoot() (fd int, err error) {
	context, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open a tmpfs context: %w", err)
	}
	defer unix.Close(context)
	for _, setting := range [][2]string{{"source", "render-worker"}, {"size", "4096"}, {"nr_inodes", "2"}, {"mode", "0555"}} {
		if err := unix.FsconfigSetString(context, setting[0], setting[1]); err != nil {
			return -1, fmt.Errorf("set tmpfs option %s: %w", setting[0], err)
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("create a tmpfs: %w", err)
	}
	fd, err = unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, rootAttributes)
	if err != nil {
		return -1, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return fd, nil
}

const rootAttributes = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// pivot makes the working directory the root, and drops the root before it.
func pivot() error {
	old, err := unix.Open("/", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the root: %w", err)
	}
	defer unix.Close(old)
	// The old root goes on top of the new one, which saves a directory for it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot to the empty root: %w", err)
	}
	if err := unix.Fchdir(old); err != nil {
		return fmt.Errorf("enter the old root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the old root: %w", err)
	}
	return unix.Chdir("/")
}

// emptyRoot takes the program away, now that it runs, and makes the root
// read-only.
func emptyRoot() error {
	return errors.Join(
		unix.Unmount(programName, unix.MNT_DETACH),
		unix.Unlink(programName),
		unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: rootAttributes | unix.MOUNT_ATTR_RDONLY}),
	)
}

// dropPrivileges takes from the calling thread what its children would inherit
// beyond the identity that they get.
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
	return clearInheritable()
}

func clearInheritable() error {
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
