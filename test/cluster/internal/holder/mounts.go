package holder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/cgroup"
)

// state is the directory of everything the cluster writes, on a file system in
// memory that only the cluster's mount namespace has: it needs no removal, and
// etcd never waits for a disk.
const state = "/run/vaultmount"

// Hidden are the directories the cluster replaces by its own: nothing it needs
// from the machine may lie below them.
func Hidden() []string { return []string{"/run", "/var/lib", "/var/log"} }

func setUpMounts() error {
	// A new mount namespace starts as a peer of the old one where systemd made
	// the root shared: without this, mounts would show on the machine.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mountState(); err != nil {
		return err
	}
	if err := shieldSysctls(); err != nil {
		return err
	}
	// Beside version 1, runc would take an empty hierarchy of version 2 for one
	// it has to make every container's group in.
	err := unix.Unmount(filepath.Join(cgroup.Root, "unified"), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount cgroup version 2: %w", err)
	}
	// The kubelet's volumes reach containers, and a CSI driver's the kubelet,
	// only through shared mounts.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

func mountState() error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, dir := range []string{"lib/etcd", "log", "pki", "cni", "sysctl", "tmp"} {
		if err := os.MkdirAll(filepath.Join(state, dir), 0o755); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	// etcd refuses a data directory that others can read.
	if err := os.Chmod(filepath.Join(state, "lib/etcd"), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	for from, to := range map[string]string{"lib": "/var/lib", "log": "/var/log"} {
		if err := unix.Mount(filepath.Join(state, from), to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
	}
	return nil
}

// shieldSysctls covers with plain files the settings that the kubelet and
// containerd write and that belong to the whole machine, not to a namespace.
func shieldSysctls() error {
	for _, name := range []string{
		"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	} {
		sysctl := filepath.Join("/proc/sys", name)
		value, err := os.ReadFile(sysctl)
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel lacks it
		}
		if err != nil {
			return fmt.Errorf("shield sysctl: %w", err)
		}
		file := filepath.Join(state, "sysctl", strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, value, 0o644); err != nil {
			return fmt.Errorf("shield sysctl: %w", err)
		}
		if err := unix.Mount(file, sysctl, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("shield sysctl %s: %w", name, err)
		}
	}
	return nil
}
