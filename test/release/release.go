// Package release builds what vaultmount is given out as: static programs, images
// of them, and lists of what is linked into them (SBOM). The same commit, version
// and Go make the same bytes. It needs no container engine, and never sends
// anything anywhere.
package release

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/vaultmount/vaultmount/test/image"
	"github.com/vaultmount/vaultmount/test/parts"
)

// Repository is the image's name without its tag; the tag is the version.
const Repository = "docker.io/vaultmount/vaultmount"

// SBOMPath is where the image holds the list of what is linked into its program.
const SBOMPath = "/usr/share/vaultmount/sbom.cdx.json"

// Release is one version of vaultmount.
type Release struct {
	Version  string    // for example v0.1.0
	Revision string    // of the sources, a commit
	Created  time.Time // when the sources became what they are
}

// Architectures are those that the index has an image for.
func Architectures() []string { return []string{"amd64", "arm64"} }

// Write builds into a directory, for each architecture, vaultmount-linux-ARCH,
// vaultmount-linux-ARCH.cdx.json and vaultmount-ARCH.tar, which containerd and
// Docker load; and vaultmount.tar, the index of all, an OCI image layout.
func (r Release) Write(ctx context.Context, directory string, progress io.Writer) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("make the directory of the images: %w", err)
	}
	index := image.Index{Name: r.name(), Annotations: r.labels()}
	for _, architecture := range Architectures() {
		built, err := r.image(ctx, directory, architecture, progress)
		if err != nil {
			return err
		}
		if err := built.Save(filepath.Join(directory, "vaultmount-"+architecture+".tar")); err != nil {
			return err
		}
		index.Images = append(index.Images, built)
	}
	return index.Save(filepath.Join(directory, "vaultmount.tar"))
}

// image builds the program for an architecture, its SBOM, and the image of both.
func (r Release) image(ctx context.Context, directory, architecture string, progress io.Writer) (image.Image, error) {
	program := filepath.Join(directory, "vaultmount-linux-"+architecture)
	driver := parts.Driver{Architecture: architecture, Version: r.Version, Commit: r.Revision, Date: r.Created.UTC().Format(time.RFC3339)}
	if err := driver.Build(ctx, program, progress); err != nil {
		return image.Image{}, err
	}
	sbom := program + ".cdx.json"
	if err := writeSBOM(ctx, program, r.Version, sbom); err != nil {
		return image.Image{}, err
	}
	built := image.Vaultmount(program)
	built.Name, built.Architecture = r.name(), architecture
	built.Labels, built.Created = r.labels(), r.Created.UTC()
	built.Files = append(built.Files, image.File{Path: SBOMPath, Mode: 0o644, From: sbom})
	return built, nil
}

func (r Release) name() string { return Repository + ":" + r.Version }

func (r Release) labels() map[string]string {
	const key = "org.opencontainers.image."
	return map[string]string{
		key + "title":       "vaultmount",
		key + "description": "HashiCorp Vault secrets as files in Kubernetes pods, without a sidecar",
		key + "source":      "https://github.com/vaultmount/vaultmount",
		key + "licenses":    "Apache-2.0",
		key + "version":     r.Version,
		key + "revision":    r.Revision,
		key + "created":     r.Created.UTC().Format(time.RFC3339),
	}
}
