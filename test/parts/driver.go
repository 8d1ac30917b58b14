package parts

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Driver is vaultmount for some architecture. It is no part of the cache: what is
// under test, or given out, is the checkout as it is.
type Driver struct {
	Architecture string // a GOARCH; this machine's if empty
	Version      string // what vaultmount version says; dev if empty
	Commit, Date string // the same of the sources; unknown if empty
	Tags         string // build tags, with commas between
}

// Vaultmount builds the driver from the checkout, into the checkout's .build, and
// returns the path of the program. All packages of a run share it: go build leaves a
// program alone that is up to date.
func Vaultmount(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Checkout()
	if err != nil {
		return "", err
	}
	directory := filepath.Join(root, ".build", "test")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return "", err
	}
	unlock, err := cache{dir: directory, progress: progress}.lock(ctx, "vaultmount")
	if err != nil {
		return "", err
	}
	defer unlock()
	program := filepath.Join(directory, "vaultmount")
	return program, Driver{}.Build(ctx, program, progress)
}

// Build builds the driver from the checkout as a static program at a path. The same
// sources, version and Go make the same bytes.
func (d Driver) Build(ctx context.Context, program string, progress io.Writer) error {
	root, err := Checkout()
	if err != nil {
		return err
	}
	defer startProgress(progress, "building vaultmount"+d.suffix()+" (about 90 s when Go's cache is empty)")()
	flags := "-s -w"
	for _, variable := range [][2]string{{"version", d.Version}, {"commit", d.Commit}, {"date", d.Date}} {
		if value := variable[1]; value != "" {
			flags += " -X main." + variable[0] + "=" + value
		}
	}
	cmd := goCommand(ctx, root, "build", "-trimpath", "-buildvcs=false", "-tags="+d.Tags, "-ldflags="+flags, "-o", program, "./cmd/vaultmount")
	if d.Architecture != "" {
		cmd.Env = append(cmd.Env, "GOOS=linux", "GOARCH="+d.Architecture)
	}
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("build vaultmount%s: %w", d.suffix(), err)
	}
	return nil
}

func (d Driver) suffix() string {
	if d.Architecture == "" {
		return ""
	}
	return " for " + d.Architecture
}

// Checkout returns the directory of the checkout that holds the working directory.
func Checkout() (string, error) {
	sources, err := findSources()
	if err != nil {
		return "", err
	}
	return filepath.Join(sources, "..", ".."), nil
}
