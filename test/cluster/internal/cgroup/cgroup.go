// Package cgroup makes and removes the one control group that everything a
// cluster's containers run in lies beneath, under both versions of the kernel's
// interface. It puts no process into it and never touches another group.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Root is where every distribution mounts the control groups.
const Root = "/sys/fs/cgroup"

// Group is a control group: one directory in version 2, in version 1 one in
// each hierarchy.
type Group struct {
	dirs    []string
	prepare func(dir string) error
}

// New describes the group of that name; Create makes it.
func New(name string) (Group, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(Root, &st); err != nil {
		return Group{}, fmt.Errorf("find cgroups at %s: %w", Root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return unified(Root, name), nil
	}
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Group{}, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	roots := hierarchies(string(mountinfo))
	if len(roots) == 0 {
		return Group{}, fmt.Errorf("find cgroup hierarchies: none is mounted below %s", Root)
	}
	return legacy(roots, name), nil
}

// Create makes the group's directories ready for the kubelet.
func (g Group) Create() error {
	for _, dir := range g.dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup: %w", err)
		}
		if err := g.prepare(dir); err != nil {
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	return nil
}

// Remove removes the group and all beneath it. Its processes must have been
// killed; ctx bounds the wait for the last of them to leave.
func (g Group) Remove(ctx context.Context) error {
	var errs []error
	for _, dir := range g.dirs {
		errs = append(errs, removeTree(ctx, dir))
	}
	return errors.Join(errs...)
}

// removeTree removes directories only, from the leaves up: the files of a
// control group go with its directory.
func removeTree(ctx context.Context, root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, dir := range slices.Backward(dirs) {
		if err := removeOne(ctx, dir); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}

// removeOne tries again while the directory is busy: a killed process counts as
// a member until the kernel has switched away from it for the last time, which
// can be shortly after its parent collected it.
func removeOne(ctx context.Context, dir string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", dir, err, ctx.Err())
		case <-tick.C:
		}
	}
}
