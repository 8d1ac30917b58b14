package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Index is one image for several architectures, to be given out: its layers are
// compressed.
type Index struct {
	Name        string
	Annotations map[string]string
	Images      []Image // their names do not matter
}

// Save writes the index as one archive, an OCI image layout, to path, complete or
// not at all.
func (x Index) Save(path string) error {
	err := inDirectory(path, func(dir, archive string) error {
		tag, err := name.NewTag(x.Name)
		if err != nil {
			return err
		}
		index, err := x.build(dir)
		if err != nil {
			return err
		}
		oci := filepath.Join(dir, "layout")
		if _, err := layout.Write(oci, named(index, x.Name, tag.TagStr())); err != nil {
			return err
		}
		return writeDirectory(archive, oci)
	})
	if err != nil {
		return fmt.Errorf("save image index %s: %w", x.Name, err)
	}
	return nil
}

func (x Index) build(dir string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, each := range x.Images {
		layer, err := each.writeLayer(dir)
		if err != nil {
			return nil, err
		}
		compressed, err := tarball.LayerFromFile(layer, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		built, err := each.build(compressed)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        built,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: each.architecture()}},
		})
	}
	return mutate.Annotations(index, x.Annotations).(v1.ImageIndex), nil
}

// named is the list of what an archive holds. containerd takes an image's name from
// one annotation, and tools of the OCI take its tag from the other.
func named(index v1.ImageIndex, name, tag string) v1.ImageIndex {
	return mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add: index,
		Descriptor: v1.Descriptor{Annotations: map[string]string{
			"io.containerd.image.name":          name,
			"org.opencontainers.image.ref.name": tag,
		}},
	})
}

// writeDirectory writes a directory's files as a tar archive.
func writeDirectory(archive, dir string) error {
	var files []File
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files = append(files, File{Path: strings.TrimPrefix(path, dir), Mode: 0o644, From: path})
		return nil
	})
	if err != nil {
		return err
	}
	return writeLayer(archive, files)
}

// Digest is what a registry will know the index in an archive by.
func Digest(archive string) (v1.Hash, error) {
	content, err := readEntry(archive, "index.json")
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read image index %s: %w", archive, err)
	}
	list, err := v1.ParseIndexManifest(bytes.NewReader(content))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read image index %s: %w", archive, err)
	}
	if len(list.Manifests) != 1 {
		return v1.Hash{}, fmt.Errorf("read image index %s: it holds %d images", archive, len(list.Manifests))
	}
	return list.Manifests[0].Digest, nil
}

// readEntry returns the content of a file in a tar archive.
func readEntry(archive, name string) ([]byte, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", name, err)
		}
		if header.Name == name {
			return io.ReadAll(r)
		}
	}
}
