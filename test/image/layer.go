package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layer is a layer in a tar file. It stays uncompressed, for which tarball has
// no layer: compressing would cost more time than it saves, as the archive goes
// no further than to a file system in memory.
type layer struct {
	path   string
	digest v1.Hash
	size   int64
}

func openLayer(path string) (*layer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	digest, size, err := v1.SHA256(f)
	return &layer{path: path, digest: digest, size: size}, err
}

// The methods of v1.Layer.

func (l *layer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }

// File is a file of an image: a regular file copied from the machine (From),
// one with its content given, a symbolic link, or a directory.
type File struct {
	Path    string // in the image, absolute
	Mode    int64
	From    string
	Content string
	Link    string
	Dir     bool
}

// writeLayer writes files as a tar archive, and before each the directories
// above it that have not come yet: an absent one would get containerd's mode.
func writeLayer(path string, files []File) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	w := layerWriter{tar: tar.NewWriter(out), written: map[string]bool{"/": true}}
	for _, file := range files {
		if err := w.add(file); err != nil {
			return errors.Join(fmt.Errorf("add %s: %w", file.Path, err), out.Close())
		}
	}
	return errors.Join(w.tar.Close(), out.Close())
}

type layerWriter struct {
	tar     *tar.Writer
	written map[string]bool // directories
}

func (w *layerWriter) add(file File) error {
	if err := w.addParents(path.Dir(file.Path)); err != nil {
		return err
	}
	// No time and no owner: the same files make the same image.
	header := &tar.Header{Name: strings.TrimPrefix(file.Path, "/"), Mode: file.Mode}
	switch {
	case file.Dir:
		header.Typeflag = tar.TypeDir
		header.Name += "/"
		w.written[file.Path] = true
		return w.tar.WriteHeader(header)
	case file.Link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, file.Link
		return w.tar.WriteHeader(header)
	case file.From != "":
		return w.copy(header, file.From)
	}
	header.Typeflag, header.Size = tar.TypeReg, int64(len(file.Content))
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.WriteString(w.tar, file.Content)
	return err
}

func (w *layerWriter) addParents(dir string) error {
	if w.written[dir] {
		return nil
	}
	return w.add(File{Path: dir, Mode: 0o755, Dir: true})
}

func (w *layerWriter) copy(header *tar.Header, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, f)
	return err
}
