package parts

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// Vaultmount builds the driver from the checkout into a directory and returns
// the path of the program. It is no part of the cache: what is under test is what
// stands in the checkout now.
func Vaultmount(ctx context.Context, directory string, progress io.Writer) (string, error) {
	sources, err := findSources()
	if err != nil {
		return "", err
	}
	defer startProgress(progress, "building vaultmount (about 90 s when Go's cache is empty)")()
	program := filepath.Join(directory, "vaultmount")
	root := filepath.Join(sources, "..", "..")
	if _, err := output(goCommand(ctx, root, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./cmd/vaultmount")); err != nil {
		return "", fmt.Errorf("build vaultmount: %w", err)
	}
	return program, nil
}

// Checkout returns the directory of the checkout that holds the working directory.
func Checkout() (string, error) {
	sources, err := findSources()
	if err != nil {
		return "", err
	}
	return filepath.Join(sources, "..", ".."), nil
}
