package attacks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/rig"
)

// fileAttacks are about the names of files: each directory takes memory of the kernel.
func fileAttacks() []attack {
	return []attack{
		{name: "1,250 file names of 510 directories each", requests: directoryRequests},
		{name: "a template writes 3,000 files in 250 directories each", requests: writtenRequests},
		{name: "capacity is taken by one pod", requests: capacityRequests},
		{name: "40 pods render almost 4 MiB each", requests: outputRequests},
	}
}

func directoryRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	attributes := map[string]string{}
	for i := range 1250 {
		attributes[fmt.Sprintf("template/%04d%s/f", i, strings.Repeat("/a", 509))] = "{{/**/}}"
	}
	return s.tenantRequests(t, 1, func(int) map[string]string { return attributes })
}

func writtenRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	const text = `{{ $d := sprig_repeat 250 "/a" }}{{ range $i := loop 3000 }}{{ writeToFile (printf "%d%s/f" $i $d) "" "" "0600" "" }}{{ end }}`
	return s.tenantRequests(t, 1, func(int) map[string]string { return map[string]string{"template/a": text} })
}

// capacityRequests are 16 volumes of the largest size, twice what the chart gives.
func capacityRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	return s.tenantRequests(t, 16, func(int) map[string]string { return map[string]string{"template/a": "x", "size": "16Mi"} })
}

// outputRequests are more at one time than the driver's memory could hold.
func outputRequests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	const text = `{{ $x := sprig_repeat 70000 "x" }}{{ range loop 55 }}{{ $x }}{{ end }}`
	return s.tenantRequests(t, 40, func(int) map[string]string { return map[string]string{"template/a": text, "size": "8Mi"} })
}

// tampering is what a container can do to a volume that it has got writable, as runc
// 1.2 and newer give it where the pod does not say readOnly.
type tampering struct {
	name string
	// do is given the volume, as the container sees it.
	do func(volume string) error
	// keeps says that the driver cannot bring the next content to the container.
	keeps bool
}

func tamperings() []tampering {
	replace := func(with func(path string) error) func(string) error {
		return func(volume string) error {
			path := filepath.Join(volume, "..data", "a")
			return errors.Join(os.Remove(path), with(path))
		}
	}
	data := func(volume string) string { return filepath.Join(volume, "..data") }
	return []tampering{
		{name: "a sparse file", do: func(volume string) error { return os.Truncate(filepath.Join(data(volume), "a"), 1<<40) }},
		{name: "a FIFO", do: replace(func(path string) error { return unix.Mkfifo(path, 0o666) })},
		{name: "no file", do: replace(func(string) error { return nil })},
		{name: "a link out of the volume", do: replace(func(path string) error { return os.Symlink("/etc/hostname", path) })},
		{name: "a link to itself", do: replace(func(path string) error { return os.Symlink("a", path) })},
		{name: "a device", do: replace(func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, 1<<8|5) })}, // /dev/zero
		{name: "a directory", do: replace(func(path string) error { return os.MkdirAll(path+"/b", 0o777) })},
		{name: "all directories are links", do: func(volume string) error { return errors.Join(os.Remove(data(volume)), os.Symlink("/", data(volume))) }, keeps: true},
		{name: "a directory in the way", do: func(volume string) error {
			return errors.Join(os.Remove(data(volume)), os.MkdirAll(data(volume)+"/b", 0o777))
		}, keeps: true},
		{name: "a full volume", do: fillVolume, keeps: true},
	}
}

// fillVolume writes until nothing more fits, first files and then bytes.
func fillVolume(volume string) error {
	for i := range 100_000 {
		if err := unix.Mkfifo(filepath.Join(volume, "fifo-"+strings.Repeat("x", i%100)+string(rune('a'+i%26))), 0o666); err != nil {
			break
		}
	}
	file, err := os.Create(filepath.Join(volume, "filler"))
	if err != nil {
		return nil // full
	}
	defer file.Close()
	for part := make([]byte, 1<<16); err == nil; {
		_, err = file.Write(part)
	}
	return nil
}

func contentAttacks() []attack {
	c := &contents{}
	return []attack{{name: "containers write to their volumes", requests: c.requests, round: c.round, after: c.after}}
}

// contents are volumes that were tampered with.
type contents struct {
	all []*csi.NodePublishVolumeRequest
}

func (c *contents) requests(t *testing.T, s *stage) []*csi.NodePublishVolumeRequest {
	t.Helper()
	c.all = s.tenantRequests(t, len(tamperings()), func(int) map[string]string {
		return map[string]string{
			"template/a": `{{ with secret "internal/data/tenant/db" }}{{ .Data.data.password }}{{ end }}`, "static-secret-render-interval": refreshInterval.String(),
		}
	})
	s.publishAll(t.Context(), c.all)
	for i, request := range c.all {
		if err := tamperings()[i].do(writableView(t, request.GetTargetPath())); err != nil {
			t.Fatalf("%s: %v", tamperings()[i].name, err)
		}
	}
	s.Vault.Write(t, "internal/data/tenant/db", map[string]any{"data": map[string]any{"password": "the next one"}})
	return c.all
}

// round publishes all volumes again, and has each refreshed.
func (c *contents) round(ctx context.Context, s *stage, requests []*csi.NodePublishVolumeRequest) {
	s.publishAll(ctx, requests)
	for _, request := range requests {
		_ = s.Refresh(ctx, request) // some cannot be
	}
}

// after requires the next content where the driver can write it.
func (c *contents) after(t *testing.T, s *stage) {
	t.Helper()
	for i, request := range c.all {
		if tamperings()[i].keeps {
			continue
		}
		rig.Eventually(t, "a volume with "+tamperings()[i].name+" is refreshed", func() bool {
			path := filepath.Join(request.GetTargetPath(), "..data", "a")
			about, err := os.Lstat(path)
			if err != nil || !about.Mode().IsRegular() || about.Size() > 100 {
				return false
			}
			content, err := os.ReadFile(path)
			return err == nil && string(content) == "the next one"
		})
	}
}

// writableView mounts a volume elsewhere without the flags that it has.
func writableView(t *testing.T, target string) string {
	t.Helper()
	view := t.TempDir()
	require.NoError(t, unix.Mount(target, view, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		if err := unix.Unmount(view, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, unix.Mount("", view, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	return view
}
