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

// packages returns the directory of a part that comes from the distribution's
// packages, which fetch puts into a directory. They are unpacked, not installed:
// installation scripts would start services on the machine.
func (b *builder) packages(ctx context.Context, part string, names []string, fetch func(ctx context.Context, dir string) error) (string, error) {
	if err := lookTools("apt-cache", "apt-get", "dpkg", "dpkg-deb"); err != nil {
		return "", err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	arch, err := output(exec.CommandContext(ctx, "dpkg", "--print-architecture"))
	if err != nil {
		return "", err
	}
	k, err := key("", append(names, releaseName(string(release)), arch)...)
	if err != nil {
		return "", err
	}
	return b.cache.get(ctx, part, k, func(ctx context.Context, dir string) error {
		defer startProgress(b.progress, "fetching "+strings.Join(names, ", "))()
		return unpack(ctx, dir, fetch)
	})
}

func lookTools(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: etcd, containerd, PostgreSQL and Prometheus come from Debian's or Ubuntu's packages", name)
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

// unpack takes the packages that fetch puts into a directory asunder in dir.
func unpack(ctx context.Context, dir string, fetch func(ctx context.Context, dir string) error) error {
	debs := filepath.Join(dir, ".debs")
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	if err := withLists(ctx, func() error { return fetch(ctx, debs) }); err != nil {
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

// withLists fetches again with apt's lists refreshed if the first attempt fails: a
// fresh machine has none, an old one names versions long gone.
func withLists(ctx context.Context, fetch func() error) error {
	first := fetch()
	if first == nil || ctx.Err() != nil {
		return first
	}
	if _, err := output(exec.CommandContext(ctx, "apt-get", "update", "-q")); err != nil {
		return errors.Join(first, err)
	}
	return fetch()
}

// download fetches packages into dir.
func download(ctx context.Context, dir string, names []string) error {
	// apt drops to a user that cannot enter the cache directory, and then warns.
	args := append([]string{"download", "-q", "-o", "APT::Sandbox::User=root"}, names...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Dir = dir
	_, err := output(cmd)
	return err
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
