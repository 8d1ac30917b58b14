// Package image makes container images out of a few files and writes them as
// archives for containerd to import. It knows no registry: the images' names
// point nowhere, and nothing pulls or pushes them.
package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Names of the images. None has the tag latest, which the kubelet would try to
// pull each time.
const (
	BusyboxName    = "docker.io/library/busybox:vaultmount-test"
	TutorialName   = "docker.io/jweissig/app:0.0.1"
	PauseName      = "docker.io/vaultmount/pause:test"
	VaultName      = "docker.io/vaultmount/vault:test"
	VaultmountName = "docker.io/vaultmount/vaultmount:dev"
)

// Image is an image of one layer.
type Image struct {
	Name       string
	Entrypoint []string
	Files      []File
}

// Save writes the image as an archive to path, complete or not at all.
func (i Image) Save(path string) error {
	if err := i.save(path); err != nil {
		return fmt.Errorf("save image %s: %w", i.Name, err)
	}
	return nil
}

func (i Image) save(path string) error {
	tag, err := name.NewTag(i.Name)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	return errors.Join(i.saveBy(dir, tag, path), os.RemoveAll(dir))
}

// saveBy writes the layer and then the archive to dir before the archive takes
// its place: a layer is read twice, for its digest and for the archive.
func (i Image) saveBy(dir string, tag name.Tag, path string) error {
	layerFile := filepath.Join(dir, "layer.tar")
	if err := writeLayer(layerFile, i.Files); err != nil {
		return err
	}
	layer, err := openLayer(layerFile)
	if err != nil {
		return err
	}
	built, err := i.build(layer)
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "image.tar")
	if err := tarball.WriteToFile(archive, tag, built); err != nil {
		return err
	}
	return os.Rename(archive, path)
}

func (i Image) build(layer v1.Layer) (v1.Image, error) {
	layered, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := layered.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config = v1.Config{
		Entrypoint: i.Entrypoint,
		Env:        []string{"PATH=/bin:/usr/bin"},
		WorkingDir: "/",
	}
	return mutate.ConfigFile(layered, config)
}
