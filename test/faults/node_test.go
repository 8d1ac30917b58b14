// Package faults breaks what the driver depends on and looks at what is left: the
// driver is killed, Vault is away or talks nonsense, memory is full or unmounted, the clock
// jumps, the node reboots. The program is a process of its own, Vault is real
// wherever a real one can be made to fail so, and what the tests look at is what a
// container or an administrator would see.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/vaultmount/vaultmount/test/rig"
)

// node is a node whose files show generations.
type node struct{ *rig.Node }

func startNode(t *testing.T, vault *rig.Vault, address string, arguments ...string) *node {
	t.Helper()
	return &node{rig.StartNode(t, vault, address, arguments...)}
}

func (n *node) request(t *testing.T, pod string, attributes map[string]string) *csi.NodePublishVolumeRequest {
	t.Helper()
	return n.Request(t, n.Vault, pod, attributes)
}

// refresh publishes a volume again, by which one without a record is taken over, and has it
// refreshed.
func (n *node) refresh(ctx context.Context, request *csi.NodePublishVolumeRequest) error {
	if err := n.Publish(ctx, request); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.CallTimeout)
	defer cancel()
	return n.Refresh(ctx, request)
}

// requireClean holds the node against one on which no pod ever was.
func (n *node) requireClean(t *testing.T) {
	t.Helper()
	rig.Eventually(t, "nothing is left to remember", func() bool { return len(n.Records(t)) == 0 })
	if mounts := n.Mounts(t); len(mounts) > 0 {
		t.Errorf("still mounted: %q", mounts)
	}
	err := filepath.WalkDir(filepath.Join(n.Root, "pods"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "mount" {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// generations are files that all show the password, one of them over and over: if
// two lines differ, or one is cut off, the set is not whole.
func generations() map[string]string {
	const one = `{{ with secret "internal/data/database/config" }}{{ .Data.data.password }}{{ end }}`
	return map[string]string{
		"template/a":        one,
		"template/deep/b":   one,
		"template/many.txt": `{{ with secret "internal/data/database/config" }}{{ $p := .Data.data.password }}{{ range loop 2000 }}{{ $p }}` + "\n" + `{{ end }}{{ end }}`,
	}
}

func password(generation int) string { return fmt.Sprintf("generation-%d.", generation) }

// readGeneration reads all files of a volume, as one set. It returns 0 if there is
// no volume. A reader whose set is replaced meanwhile looks again, as programs do
// that watch the kubelet's own volumes.
func readGeneration(target string) (int, error) {
	for {
		before, _ := os.Readlink(filepath.Join(target, "..data")) // empty if there is none
		seen, err := readSet(target)
		after, _ := os.Readlink(filepath.Join(target, "..data"))
		if !errors.Is(err, fs.ErrNotExist) || before == after {
			return seen, err
		}
	}
}

func readSet(target string) (int, error) {
	directory, err := os.OpenRoot(filepath.Join(target, "..data"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer directory.Close()
	found := map[string]bool{}
	for name, lines := range map[string]int{"a": 1, "deep/b": 1, "many.txt": 2000} {
		content, err := directory.ReadFile(name)
		if err != nil {
			return 0, err
		}
		all := strings.Fields(string(content))
		if len(all) != lines {
			return 0, fmt.Errorf("%s has %d lines, want %d", name, len(all), lines)
		}
		for _, line := range all {
			found[line] = true
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("the files of one volume hold %d generations", len(found))
	}
	for line := range found {
		number := 0
		if _, err := fmt.Sscanf(line, "generation-%d.", &number); err != nil {
			return 0, fmt.Errorf("a file holds %q", line)
		}
		return number, nil
	}
	return 0, nil
}
