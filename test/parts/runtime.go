package parts

import (
	"context"
	"path/filepath"
)

// Runtime is the container runtime and etcd, from the distribution's packages.
type Runtime struct {
	Root      string // directory the packages are unpacked in
	Bin       string // directory of containerd, its shim and ctr
	Etcd      string // program
	Runc      string // program
	Busybox   string // program, static
	CNI       string // directory of the network plugins
	Libraries string // directory for LD_LIBRARY_PATH
}

// packages are Debian's and Ubuntu's names; libseccomp2 is the one library that
// runc needs and a bare machine may lack.
func packages() []string {
	return []string{"busybox-static", "containerd", "containernetworking-plugins", "etcd-server", "libseccomp2", "runc"}
}

// runtime fetches what the container runtime and etcd need.
func (b *builder) runtime(ctx context.Context) (Runtime, error) {
	names := packages()
	root, err := b.packages(ctx, "runtime", names, func(ctx context.Context, dir string) error {
		return download(ctx, dir, names)
	})
	if err != nil {
		return Runtime{}, err
	}
	return findRuntime(root)
}

func findRuntime(root string) (Runtime, error) {
	r := Runtime{Root: root}
	var containerd, bridge, seccomp string
	for _, want := range []struct {
		path *string
		name string
		in   []string
	}{
		{&containerd, "containerd", programDirs()},
		{&r.Etcd, "etcd", programDirs()},
		{&r.Runc, "runc", programDirs()},
		{&r.Busybox, "busybox", programDirs()},
		{&bridge, "bridge", []string{"usr/lib/cni", "opt/cni/bin"}},
		{&seccomp, "libseccomp.so.2", []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"}},
	} {
		path, err := find(root, want.name, want.in)
		if err != nil {
			return Runtime{}, err
		}
		*want.path = path
	}
	r.Bin, r.CNI, r.Libraries = filepath.Dir(containerd), filepath.Dir(bridge), filepath.Dir(seccomp)
	return r, nil
}
