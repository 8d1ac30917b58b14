// Package image makes container images out of a few files and writes them as
// archives for containerd and Docker to load. It knows no registry: nothing pulls
// or pushes the images.
package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
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
	Name         string
	Architecture string // a GOARCH; this machine's if empty
	Entrypoint   []string
	User         string // "uid:gid"; root if empty
	Labels       map[string]string
	Created      time.Time // left out if zero
	Files        []File
}

// Save writes the image as an archive to path, complete or not at all.
func (i Image) Save(path string) error {
	err := inDirectory(path, func(dir, archive string) error {
		layer, err := i.writeLayer(dir)
		if err != nil {
			return err
		}
		opened, err := openLayer(layer)
		if err != nil {
			return err
		}
		built, err := i.build(opened)
		if err != nil {
			return err
		}
		return i.writeArchive(built, archive)
	})
	if err != nil {
		return fmt.Errorf("save image %s: %w", i.Name, err)
	}
	return nil
}

// inDirectory gives write a directory beside path, and path what it writes to the
// archive there. A layer is read twice, for its digest and for the archive.
func inDirectory(path string, write func(dir, archive string) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "archive.tar")
	err = write(dir, archive)
	if err == nil {
		err = os.Rename(archive, path)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func (i Image) writeLayer(dir string) (string, error) {
	layer := filepath.Join(dir, "layer-"+i.architecture()+".tar")
	return layer, writeLayer(layer, i.Files)
}

func (i Image) writeArchive(built v1.Image, path string) error {
	tag, err := name.NewTag(i.Name)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(path, tag, built)
}

func (i Image) architecture() string {
	if i.Architecture == "" {
		return runtime.GOARCH
	}
	return i.Architecture
}

func (i Image) build(layer v1.Layer) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	layered, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := layered.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = i.architecture(), "linux"
	config.Created = v1.Time{Time: i.Created}
	config.Config = v1.Config{
		Entrypoint: i.Entrypoint,
		Env:        []string{"PATH=/bin:/usr/bin"},
		WorkingDir: "/",
		User:       i.User,
		Labels:     i.Labels,
	}
	return mutate.ConfigFile(layered, config)
}
