package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// downloadWithLibraries fetches packages into dir, and the libraries they need.
func downloadWithLibraries(ctx context.Context, dir string, names []string) error {
	names = slices.Clone(names)
	for next := names; len(next) > 0; {
		all, err := depends(ctx, next...)
		if err != nil {
			return err
		}
		next = slices.DeleteFunc(all, func(name string) bool { return !isLibrary(name) || slices.Contains(names, name) })
		names = append(names, next...)
	}
	return download(ctx, dir, names)
}

// isLibrary leaves out what apt needs itself, so that it is there, as well as the
// just-in-time compiler of PostgreSQL, which is larger than all the rest.
func isLibrary(name string) bool {
	present := []string{"libc6", "libgcc-s1", "libstdc++6"}
	return strings.HasPrefix(name, "lib") && !strings.HasPrefix(name, "libllvm") && !slices.Contains(present, name)
}

// depends lists what packages depend on, each once.
func depends(ctx context.Context, names ...string) ([]string, error) {
	args := append([]string{"depends", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"}, names...)
	text, err := output(exec.CommandContext(ctx, "apt-cache", args...))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, match := range regexp.MustCompile(`(?m)Depends: ([a-z0-9][^\s:]*)`).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// libraryDirs are where packages put libraries.
func libraryDirs() []string { return []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} }

// findLibraries returns the directories of libraries, for LD_LIBRARY_PATH.
func findLibraries(root string) (string, error) {
	var all []string
	for _, pattern := range libraryDirs() {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return "", err
		}
		all = append(all, found...)
	}
	return strings.Join(all, ":"), nil
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

// Postgres is where a PostgreSQL server is.
type Postgres struct {
	Bin       string // directory of initdb and postgres
	Libraries string // for LD_LIBRARY_PATH
}

// PostgreSQL makes a database server from the distribution's packages.
func PostgreSQL(ctx context.Context, progress io.Writer) (Postgres, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return Postgres{}, err
	}
	root, err := b.packages(ctx, "postgres", []string{"postgresql"}, fetchPostgres)
	if err != nil {
		return Postgres{}, fmt.Errorf("unpack postgresql: %w", err)
	}
	return findPostgres(root)
}

// fetchPostgres fetches the server of whatever version the distribution has, and
// the libraries it needs.
func fetchPostgres(ctx context.Context, dir string) error {
	latest, err := depends(ctx, "postgresql")
	if err != nil {
		return err
	}
	isServer := regexp.MustCompile(`^postgresql-\d+$`).MatchString
	return downloadWithLibraries(ctx, dir, slices.DeleteFunc(latest, func(name string) bool { return !isServer(name) }))
}

func findPostgres(root string) (Postgres, error) {
	program, err := find(root, "initdb", []string{"usr/lib/postgresql/*/bin"})
	if err != nil {
		return Postgres{}, err
	}
	libraries, err := findLibraries(root)
	return Postgres{Bin: filepath.Dir(program), Libraries: libraries}, err
}

// Prometheus is where a Prometheus server is.
type Prometheus struct {
	Server   string // program
	Promtool string // program that checks rules
}

// PrometheusServer takes a Prometheus server from the distribution's packages.
func PrometheusServer(ctx context.Context, progress io.Writer) (Prometheus, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return Prometheus{}, err
	}
	names := []string{"prometheus"}
	// The programs need nothing but the C library.
	root, err := b.packages(ctx, "prometheus", names, func(ctx context.Context, dir string) error { return download(ctx, dir, names) })
	if err != nil {
		return Prometheus{}, fmt.Errorf("unpack prometheus: %w", err)
	}
	var p Prometheus
	if p.Server, err = find(root, "prometheus", programDirs()); err != nil {
		return Prometheus{}, err
	}
	p.Promtool, err = find(root, "promtool", programDirs())
	return p, err
}

// UserMode is where a kernel is that runs as an ordinary process.
type UserMode struct {
	Kernel  string // program
	Busybox string // program, static
}

// UserModeLinux takes a kernel from the distribution's packages.
func UserModeLinux(ctx context.Context, progress io.Writer) (UserMode, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return UserMode{}, err
	}
	names := []string{"busybox-static", "user-mode-linux"}
	root, err := b.packages(ctx, "usermode", names, func(ctx context.Context, dir string) error { return download(ctx, dir, names) })
	if err != nil {
		return UserMode{}, fmt.Errorf("unpack user-mode-linux: %w", err)
	}
	var u UserMode
	err = findAll(root, []wanted{{&u.Kernel, "linux.uml", programDirs()}, {&u.Busybox, "busybox", programDirs()}})
	return u, err
}
