package parts

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
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
