package parts

import (
	"context"
	"fmt"
	"path/filepath"
)

// Source is where the container runtime, its network plugins and etcd come from.
type Source string

const (
	// Packaged is the distribution's packages: quick to have, and years old.
	Packaged Source = "packaged"
	// Current is built from Go modules, in the versions that their folders name,
	// with the distribution's crun as a second runtime.
	Current Source = "current"
)

// Runtime is the container runtime and etcd.
type Runtime struct {
	Root      string // directory the packages are unpacked in
	Bin       string // directory of containerd, its shim and ctr
	Etcd      string // program
	Runc      string // program
	Crun      string // program; empty if there is none
	Busybox   string // program, static
	CNI       string // directory of the network plugins
	Libraries string // for LD_LIBRARY_PATH
}

func (b *builder) runtime(ctx context.Context, source Source) (Runtime, error) {
	switch source {
	case Packaged:
		return b.packagedRuntime(ctx)
	case Current:
		return b.currentRuntime(ctx)
	}
	return Runtime{}, fmt.Errorf("%q is neither %q nor %q", source, Packaged, Current)
}

// packagedRuntime fetches packages by Debian's and Ubuntu's names; libseccomp2 is
// the one library that runc needs and a bare machine may lack.
func (b *builder) packagedRuntime(ctx context.Context) (Runtime, error) {
	names := []string{"busybox-static", "containerd", "containernetworking-plugins", "etcd-server", "libseccomp2", "runc"}
	root, err := b.packages(ctx, "runtime", names, func(ctx context.Context, dir string) error {
		return download(ctx, dir, names)
	})
	if err != nil {
		return Runtime{}, err
	}
	r := Runtime{Root: root}
	var containerd, bridge string
	if err := findAll(root, []wanted{
		{&containerd, "containerd", programDirs()},
		{&r.Etcd, "etcd", programDirs()},
		{&r.Runc, "runc", programDirs()},
		{&r.Busybox, "busybox", programDirs()},
		{&bridge, "bridge", []string{"usr/lib/cni", "opt/cni/bin"}},
	}); err != nil {
		return Runtime{}, err
	}
	r.Bin, r.CNI = filepath.Dir(containerd), filepath.Dir(bridge)
	r.Libraries, err = findLibraries(root)
	return r, err
}

// currentRuntime builds what is written in Go. libseccomp is a library of C, which
// runc is linked with.
func (b *builder) currentRuntime(ctx context.Context) (Runtime, error) {
	names := []string{"busybox-static", "crun", "libseccomp-dev"}
	root, err := b.packages(ctx, "crun", names, func(ctx context.Context, dir string) error {
		return downloadWithLibraries(ctx, dir, names)
	})
	if err != nil {
		return Runtime{}, err
	}
	r := Runtime{Root: root}
	var seccomp string
	if err := findAll(root, []wanted{
		{&r.Crun, "crun", programDirs()},
		{&r.Busybox, "busybox", programDirs()},
		{&seccomp, "libseccomp.a", libraryDirs()},
	}); err != nil {
		return Runtime{}, err
	}
	if r.Libraries, err = findLibraries(root); err != nil {
		return Runtime{}, err
	}
	if r.Runc, err = b.runc(ctx, filepath.Join(root, "usr", "include"), filepath.Dir(seccomp)); err != nil {
		return Runtime{}, fmt.Errorf("build runc: %w", err)
	}
	if r.CNI, err = b.cni(ctx); err != nil {
		return Runtime{}, fmt.Errorf("build network plugins: %w", err)
	}
	if r.Bin, err = b.containerd(ctx); err != nil {
		return Runtime{}, fmt.Errorf("build containerd: %w", err)
	}
	if r.Etcd, err = b.etcd(ctx); err != nil {
		return Runtime{}, fmt.Errorf("build etcd: %w", err)
	}
	return r, nil
}

// wanted is a file to find in unpacked packages.
type wanted struct {
	path *string
	name string
	in   []string // patterns of directories
}

func findAll(root string, files []wanted) error {
	for _, want := range files {
		path, err := find(root, want.name, want.in)
		if err != nil {
			return err
		}
		*want.path = path
	}
	return nil
}
