package image

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

func TestSavedImageHoldsItsFiles(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, []byte("binary"), 0o700))
	archive := save(t, testImage(program))
	read, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	config, err := read.ConfigFile()
	require.NoError(t, err)
	if got := config.Config.Entrypoint; len(got) != 1 || got[0] != "/bin/program" {
		t.Errorf("entrypoint is %q", got)
	}
	files := mutate.Extract(read)
	defer files.Close()
	var names []string
	for r := tar.NewReader(files); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		names = append(names, header.Name)
		if header.Name == "bin/program" && header.Mode != 0o755 {
			t.Errorf("mode of the program is %o", header.Mode)
		}
	}
	if len(names) != 5 || names[0] != "bin" || names[1] != "bin/program" {
		t.Errorf("files are %q; want bin before bin/program", names)
	}
}

func TestSameFilesMakeTheSameImage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, []byte("binary"), 0o700))
	first, second := digest(t, save(t, testImage(program))), digest(t, save(t, testImage(program)))
	if first != second {
		t.Error("two archives of the same image differ")
	}
}

func TestFailedSaveLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := testImage(filepath.Join(dir, "missing")).Save(filepath.Join(dir, "image.tar")); err == nil {
		t.Fatal("no error for a missing program")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func testImage(program string) Image {
	return Image{
		Name:       "docker.io/vaultmount/unit:test",
		Entrypoint: []string{"/bin/program"},
		Files: []File{
			{Path: "/bin/program", Mode: 0o755, From: program},
			{Path: "/bin/alias", Mode: 0o777, Link: "program"},
			{Path: "/etc/passwd", Mode: 0o644, Content: "root:x:0:0::/:/bin/sh\n"},
		},
	}
}

func save(t *testing.T, i Image) string {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, i.Save(archive))
	return archive
}

func digest(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return sha256.Sum256(content)
}
