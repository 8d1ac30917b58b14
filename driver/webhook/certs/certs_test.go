package certs

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// secretVolume is a directory as the kubelet makes it for a Secret: the files are
// links through ..data, which is swapped.
type secretVolume struct{ directory string }

func newSecretVolume(t *testing.T) secretVolume {
	t.Helper()
	v := secretVolume{t.TempDir()}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, v.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func (v secretVolume) path(name string) string { return filepath.Join(v.directory, name) }

func (v secretVolume) swap(t *testing.T, version string, data map[string][]byte) {
	t.Helper()
	if err := os.Mkdir(v.path(version), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.WriteFile(v.path(version+"/"+name), data[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(version, v.path("..new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(v.path("..new"), v.path("..data")); err != nil {
		t.Fatal(err)
	}
}

func TestFilesFollowsASwap(t *testing.T) {
	t.Parallel()
	volume := newSecretVolume(t)
	files := NewFiles(volume.path("tls.crt"), volume.path("tls.key"))
	if _, err := files.Current(); err == nil {
		t.Error("there is a certificate before anything was read")
	}
	if err := files.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without files: %v", err)
	}
	for _, version := range []string{"..1", "..2"} {
		data, leaf := newData(t)
		volume.swap(t, version, data)
		requireServed(t, files, leaf)
		requireServed(t, files, leaf)
	}
}

func TestFilesKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	volume := newSecretVolume(t)
	files := NewFiles(volume.path("tls.crt"), volume.path("tls.key"))
	data, leaf := newData(t)
	volume.swap(t, "..1", data)
	requireServed(t, files, leaf)
	mixed, _ := newData(t)
	mixed["tls.key"] = data["tls.key"]
	volume.swap(t, "..2", mixed)
	if err := files.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("a pair that does not fit: %v", err)
	}
	current, err := files.Current()
	if err != nil || !current.Leaf.Equal(leaf.Leaf) {
		t.Errorf("the certificate in use is gone: %v", err)
	}
}

func requireServed(t *testing.T, source Source, want *tls.Certificate) {
	t.Helper()
	if err := source.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	current, err := source.Current()
	if err != nil || !current.Leaf.Equal(want.Leaf) {
		t.Errorf("another certificate is served: %v", err)
	}
}
