package parts

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

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
	names := slices.DeleteFunc(latest, func(name string) bool { return !isServer(name) })
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
// just-in-time compiler, which is larger than all the rest.
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

func findPostgres(root string) (Postgres, error) {
	program, err := find(root, "initdb", []string{"usr/lib/postgresql/*/bin"})
	if err != nil {
		return Postgres{}, err
	}
	var libraries []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return Postgres{}, err
		}
		libraries = append(libraries, found...)
	}
	return Postgres{Bin: filepath.Dir(program), Libraries: strings.Join(libraries, ":")}, nil
}
