package testbed

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
)

// buildImages writes the archives of the images that the testbed's pods use.
func buildImages(ctx context.Context, all *parts.Parts, directory string, progress io.Writer) ([]string, error) {
	program, err := parts.Vaultmount(ctx, progress)
	if err != nil {
		return nil, err
	}
	busybox, err := image.Busybox(ctx, all.Runtime.Busybox)
	if err != nil {
		return nil, err
	}
	vault, err := image.Vault(ctx, all.Runtime.Busybox, all.Vault)
	if err != nil {
		return nil, err
	}
	tutorial, err := image.Tutorial(ctx, all.Runtime.Busybox)
	if err != nil {
		return nil, err
	}
	var archives []string
	for i, each := range []image.Image{image.Vaultmount(program), busybox, tutorial, vault} {
		archive := filepath.Join(directory, fmt.Sprintf("%d.tar", i))
		if err := each.Save(archive); err != nil {
			return nil, fmt.Errorf("save image %s: %w", each.Name, err)
		}
		archives = append(archives, archive)
	}
	return archives, nil
}
