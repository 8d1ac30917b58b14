package tmpfs

import (
	"os"
	"path/filepath"
	"testing"

	mount "k8s.io/mount-utils"
)

// The figures of README.md: this package beside k8s.io/mount-utils. It needs
// mount(8).
func BenchmarkBesideMountUtils(b *testing.B) {
	mounter := newMounter(b)
	utils := mount.NewWithoutSystemd("")
	target := filepath.Join(b.TempDir(), "mount")
	b.Run("mount and unmount/tmpfs", func(b *testing.B) {
		for b.Loop() {
			must(b, mounter.Create(target, mebibyte, oneFile("a", "x")))
			must(b, Remove(target))
		}
	})
	b.Run("mount and unmount/mount-utils", func(b *testing.B) { // and no file is written
		for b.Loop() {
			must(b, os.Mkdir(target, 0o750))
			must(b, utils.Mount("csi.example.com", target, "tmpfs", []string{"size=1048576", "nosuid", "nodev", "noexec", "ro"}))
			must(b, mount.CleanupMountPoint(target, utils, true))
		}
	})
	must(b, mounter.Create(target, mebibyte, oneFile("a", "x")))
	b.Cleanup(func() { _ = Remove(target) })
	beneath := filepath.Join(b.TempDir(), "directory")
	must(b, os.Mkdir(beneath, 0o700))
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
