package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// runtime unpacks the packages. They are not installed: etcd-server's and
// containerd's installation scripts would start services on the machine.
func (b *builder) runtime(ctx context.Context) (Runtime, error) {
	if err := lookTools("apt-get", "dpkg", "dpkg-deb"); err != nil {
		return Runtime{}, err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return Runtime{}, err
	}
	arch, err := output(exec.CommandContext(ctx, "dpkg", "--print-architecture"))
	if err != nil {
		return Runtime{}, err
	}
	names := packages()
	k, err := key("", append(names, releaseName(string(release)), arch)...)
	if err != nil {
		return Runtime{}, err
	}
	root, err := b.cache.get(ctx, "runtime", k, func(ctx context.Context, dir string) error {
		defer startProgress(b.progress, "fetching "+strings.Join(names, ", "))()
		return unpackPackages(ctx, dir, names)
	})
	if err != nil {
		return Runtime{}, err
	}
	return findRuntime(root)
}

func lookTools(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: etcd and containerd come from Debian's or Ubuntu's packages", name)
		}
	}
	return nil
}

// releaseName is the distribution and its release from an os-release file.
func releaseName(osRelease string) string {
	var id, version string
	for line := range strings.Lines(osRelease) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ID":
			id = strings.Trim(value, `"`)
		case "VERSION_ID":
			version = strings.Trim(value, `"`)
		}
	}
	return id + " " + version
}

func unpackPackages(ctx context.Context, dir string, names []string) error {
	debs := filepath.Join(dir, ".debs")
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	if err := download(ctx, debs, names); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if _, err := output(exec.CommandContext(ctx, "dpkg-deb", "-x", file, dir)); err != nil {
			return err
		}
	}
	return os.RemoveAll(debs)
}

// download fetches packages into dir, with apt's lists refreshed if the first
// attempt fails: a fresh machine has none, an old one names versions long gone.
func download(ctx context.Context, dir string, names []string) error {
	// apt drops to a user that cannot enter the cache directory, and then warns.
	args := append([]string{"download", "-q", "-o", "APT::Sandbox::User=root"}, names...)
	fetch := func() error {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Dir = dir
		_, err := output(cmd)
		return err
	}
	first := fetch()
	if first == nil || ctx.Err() != nil {
		return first
	}
	if _, err := output(exec.CommandContext(ctx, "apt-get", "update", "-q")); err != nil {
		return errors.Join(first, err)
	}
	return fetch()
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

// programDirs are where packages put programs; releases differ in it.
func programDirs() []string { return []string{"usr/bin", "usr/sbin", "bin", "sbin"} }

func find(root, name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(root, dir, name))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("find %s: not in the packages unpacked at %s", name, root)
}
