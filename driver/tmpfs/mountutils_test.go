package tmpfs

import (
	"os"
	"path/filepath"
	"testing"

	mount "k8s.io/mount-utils"
)

// The figures of README.md: this package beside k8s.io/mount-utils. Needs root and
// mount(8).
func BenchmarkBesideMountUtils(b *testing.B) {
	mounter, err := NewMounter("csi.example.com")
	if err != nil {
		b.Fatal(err)
	}
	utils := mount.NewWithoutSystemd("")
	set := Set{Files: []File{{Path: "a", Content: []byte("x"), Perms: 0o644}}}
	target := filepath.Join(b.TempDir(), "mount")
	b.Run("mount and unmount/tmpfs", func(b *testing.B) {
		for b.Loop() {
			if _, err := mounter.Create(target, 1<<20, set); err != nil {
				b.Fatal(err)
			}
			if err := Remove(target); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("mount and unmount/mount-utils", func(b *testing.B) { // and no file is written
		for b.Loop() {
			if err := os.Mkdir(target, 0o750); err != nil {
				b.Fatal(err)
			}
			if err := utils.Mount("csi.example.com", target, "tmpfs", []string{"size=1048576", "nosuid", "nodev", "noexec", "ro"}); err != nil {
				b.Fatal(err)
			}
			if err := mount.CleanupMountPoint(target, utils, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	if _, err := mounter.Create(target, 1<<20, set); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = Remove(target) })
	beneath := filepath.Join(b.TempDir(), "directory")
	if err := os.Mkdir(beneath, 0o700); err != nil {
		b.Fatal(err)
	}
	for name, is := range map[string]func(string) (bool, error){
		"tmpfs":                               Exists,
		"mount-utils (IsLikelyNotMountPoint)": func(path string) (bool, error) { not, err := utils.IsLikelyNotMountPoint(path); return !not, err },
		"mount-utils (IsMountPoint)":          utils.IsMountPoint,
		"mount-utils (List)": func(path string) (bool, error) {
			_, err := utils.List()
			return path == target, err
		},
	} {
		for path, want := range map[string]bool{target: true, beneath: false} {
			b.Run("is it mounted/"+name+"/"+filepath.Base(path), func(b *testing.B) {
				for b.Loop() {
					if got, err := is(path); err != nil || got != want {
						b.Fatal(got, err)
					}
				}
			})
		}
	}
}
