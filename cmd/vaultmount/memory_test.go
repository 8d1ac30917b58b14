package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestCgroupMemory(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		self  string
		files map[string]string
		want  int64
	}{
		"version 2 in a container":    {"0::/\n", map[string]string{"memory.max": "134217728\n"}, 128 << 20},
		"version 2 on a host":         {"0::/kubepods/a\n", map[string]string{"kubepods/a/memory.max": "1000\n", "memory.max": "1\n"}, 1000},
		"version 2 without a limit":   {"0::/\n", map[string]string{"memory.max": "max\n"}, 0},
		"version 1 in a container":    {"4:memory:/kubepods/a\n1:cpu:/kubepods/a\n0::/\n", map[string]string{"memory/memory.limit_in_bytes": "1000\n"}, 1000},
		"version 1 on a host":         {"4:memory:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "1000\n", "memory/memory.limit_in_bytes": "1\n"}, 1000},
		"version 2 beside version 1":  {"4:memory:/a\n0::/\n", map[string]string{"memory/a/memory.limit_in_bytes": "1000\n", "unified/x": ""}, 1000},
		"without a memory controller": {"1:cpu:/\n", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			write := func(path, text string) {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for path, text := range test.files {
				write(filepath.Join(root, path), text)
			}
			self := filepath.Join(t.TempDir(), "self")
			write(self, test.self)
			if got, err := cgroupMemory(self, root); err != nil || got != test.want {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
		})
	}
}

// The heap of the driver may have what its volumes may take, and what it needs itself.
func TestDriverMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for _, test := range []struct{ capacity, want int64 }{{0, before}, {128 << 20, 256 << 20}} {
		limitDriverMemory(test.capacity)
		if got := debug.SetMemoryLimit(-1); got != test.want {
			t.Errorf("for a capacity of %d, the limit is %d, want %d", test.capacity, got, test.want)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	limitDriverMemory(1 << 20)
	if got := debug.SetMemoryLimit(-1); got != 256<<20 {
		t.Errorf("$GOMEMLIMIT does not come first: %d", got)
	}
}
