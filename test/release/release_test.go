package release

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/image"
)

// What is given out is built once for all tests that look at it, and once more to
// compare.
func TestReleaseIsWhatItSays(t *testing.T) {
	release := Release{Version: "v1.2.3", Revision: "0123456789abcdef", Created: time.Unix(1_700_000_000, 0)}
	directory := t.TempDir()
	require.NoError(t, release.Write(t.Context(), directory, t.Output()))
	index := openIndex(t, filepath.Join(directory, "vaultmount.tar"))
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	if len(manifest.Manifests) != 2 || manifest.Annotations["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("the index is %+v", manifest)
	}
	for i, architecture := range []string{"amd64", "arm64"} {
		t.Run(architecture, func(t *testing.T) {
			described := manifest.Manifests[i]
			if described.Platform.String() != "linux/"+architecture {
				t.Errorf("image %d is for %s", i, described.Platform)
			}
			built, err := index.Image(described.Digest)
			require.NoError(t, err)
			alone, err := tarball.ImageFromPath(filepath.Join(directory, "vaultmount-"+architecture+".tar"), nil)
			require.NoError(t, err)
			requireConfig(t, built, architecture)
			requireSameConfig(t, built, alone)
			requireFiles(t, built, architecture)
			requireFiles(t, alone, architecture)
		})
	}
	t.Run("again", func(t *testing.T) { requireSameAgain(t, release, directory) })
}

func openIndex(t *testing.T, archive string) v1.ImageIndex {
	t.Helper()
	directory := t.TempDir()
	if output, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", directory).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, output)
	}
	list, err := layout.ImageIndexFromPath(directory)
	require.NoError(t, err)
	manifest, err := list.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("the archive holds %+v, %v", manifest, err)
	}
	only := manifest.Manifests[0]
	if name := only.Annotations["io.containerd.image.name"]; name != "docker.io/vaultmount/vaultmount:v1.2.3" {
		t.Errorf("containerd reads the name %q", name)
	}
	if digest, err := image.Digest(archive); err != nil || digest != only.Digest {
		t.Errorf("its digest is %s, %v; want %s", digest, err, only.Digest)
	}
	index, err := list.ImageIndex(only.Digest)
	require.NoError(t, err)
	return index
}

func requireConfig(t *testing.T, built v1.Image, architecture string) {
	t.Helper()
	file, err := built.ConfigFile()
	require.NoError(t, err)
	config := file.Config
	if file.Architecture != architecture || file.OS != "linux" || !file.Created.Equal(time.Unix(1_700_000_000, 0)) {
		t.Errorf("the image is for %s/%s, made at %s", file.OS, file.Architecture, file.Created)
	}
	if config.User != "65532:65532" || !slices.Equal(config.Entrypoint, []string{"/vaultmount"}) || config.Cmd != nil {
		t.Errorf("it runs %q %q as %q", config.Entrypoint, config.Cmd, config.User)
	}
	want := map[string]string{
		"title": "vaultmount", "version": "v1.2.3", "revision": "0123456789abcdef", "created": "2023-11-14T22:13:20Z",
		"licenses": "Apache-2.0", "source": "https://github.com/vaultmount/vaultmount",
		"description": "HashiCorp Vault secrets as files in Kubernetes pods, without a sidecar",
	}
	for label, value := range want {
		if got := config.Labels["org.opencontainers.image."+label]; got != value {
			t.Errorf("label %s is %q, want %q", label, got, value)
		}
	}
	if len(config.Labels) != len(want) {
		t.Errorf("labels are %q", config.Labels)
	}
}

// The two archives hold their layers differently; what identifies an image on a
// node is its config.
func requireSameConfig(t *testing.T, one, other v1.Image) {
	t.Helper()
	first, err := one.ConfigName()
	require.NoError(t, err)
	second, err := other.ConfigName()
	require.NoError(t, err)
	if first != second {
		t.Errorf("the index has image %s, the archive of its own %s", first, second)
	}
}

func requireFiles(t *testing.T, built v1.Image, architecture string) {
	t.Helper()
	reader := mutate.Extract(built)
	defer reader.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(reader); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if header.Typeflag == tar.TypeDir {
			continue
		}
		// The driver starts the program once more as users that own nothing.
		if want := map[string]int64{"vaultmount": 0o755, SBOMPath[1:]: 0o644}[header.Name]; header.Mode != want {
			t.Errorf("the mode of %s is %o", header.Name, header.Mode)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) != 2 {
		t.Errorf("the image has %d files", len(files))
	}
	requireStatic(t, files["vaultmount"], architecture)
	requireSBOM(t, files[SBOMPath[1:]], files["vaultmount"])
}

func requireStatic(t *testing.T, program []byte, architecture string) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(program))
	require.NoError(t, err)
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[architecture]; file.Machine != want {
		t.Errorf("the program is for %s, want %s", file.Machine, want)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is linked dynamically: it has a segment %s", segment.Type)
		}
	}
}

// requireSBOM compares the list with what go version -m says of the program.
func requireSBOM(t *testing.T, sbom, program []byte) {
	t.Helper()
	var list struct {
		Format   string `json:"bomFormat"`
		Metadata struct {
			Component struct{ Name, Version string }
		}
		Parts []struct{ Name, Version string } `json:"components"`
	}
	require.NoError(t, json.Unmarshal(sbom, &list))
	if main := list.Metadata.Component; list.Format != "CycloneDX" || main.Name != "github.com/vaultmount/vaultmount" || main.Version != "v1.2.3" {
		t.Errorf("it is a list in %s of %s %s", list.Format, main.Name, main.Version)
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	require.NoError(t, err)
	want := []string{"std " + info.GoVersion}
	for _, module := range info.Deps {
		want = append(want, module.Path+" "+module.Version)
	}
	var got []string
	for _, part := range list.Parts {
		got = append(got, part.Name+" "+part.Version)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(got) < 20 {
		t.Errorf("the list holds\n%s\nthe program\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func requireSameAgain(t *testing.T, release Release, directory string) {
	t.Helper()
	again := t.TempDir()
	require.NoError(t, release.Write(t.Context(), again, t.Output()))
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	if len(entries) != 7 {
		t.Errorf("a release is %d files: %v", len(entries), entries)
	}
	for _, entry := range entries {
		if digest(t, filepath.Join(directory, entry.Name())) != digest(t, filepath.Join(again, entry.Name())) {
			t.Errorf("%s differs from what was built before", entry.Name())
		}
	}
}

func digest(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return sha256.Sum256(content)
}
