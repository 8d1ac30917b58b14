package parts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeyChangesWithEachInput(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	seen := make(map[string]string)
	check := func(what string, facts ...string) {
		k, err := key(dir, facts...)
		require.NoError(t, err)
		if earlier, ok := seen[k]; ok {
			t.Errorf("%s gives the same key as %s", what, earlier)
		}
		seen[k] = what
	}
	write("go.mod", "module a\n")
	check("a module", "go1")
	check("another go version", "go2")
	check("another flag", "go1", "-tags=minimal")
	check("facts that join to the same text", "go1-tags=minimal")
	write("go.mod", "module b\n")
	check("another go.mod", "go1")
	write("main.go", "package main\n")
	check("a source more", "go1")
	require.NoError(t, os.Rename(filepath.Join(dir, "main.go"), filepath.Join(dir, "other.go")))
	check("a renamed source", "go1")
}

func TestCacheMakesAPartOnce(t *testing.T) {
	c := cache{dir: t.TempDir(), progress: t.Output()}
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			dir, err := c.get(t.Context(), "part", "key", func(_ context.Context, dir string) error {
				made.Add(1)
				return os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
			})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("made %d times", made.Load())
	}
}

func TestFailedBuildLeavesNoPart(t *testing.T) {
	c := cache{dir: t.TempDir(), progress: t.Output()}
	failure := errors.New("no")
	_, err := c.get(t.Context(), "part", "key", func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), failure)
	})
	if !errors.Is(err, failure) {
		t.Fatalf("get gives %v", err)
	}
	if left := directories(t, c); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestNextBuildCleansUpAfterAKilledOne(t *testing.T) {
	c := cache{dir: t.TempDir(), progress: t.Output()}
	require.NoError(t, os.MkdirAll(filepath.Join(c.dir, ".unfinished-part-123", "half"), 0o755))
	dir, err := c.get(t.Context(), "part", "key", func(context.Context, string) error { return nil })
	require.NoError(t, err)
	if left := directories(t, c); len(left) != 1 || left[0] != dir {
		t.Errorf("left %q; want only %q", left, dir)
	}
}

func TestWaitForAnotherBuildEndsWithTheContext(t *testing.T) {
	c := cache{dir: t.TempDir(), progress: t.Output()}
	unlock, err := c.lock(t.Context(), "part")
	require.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.lock(ctx, "part"); !errors.Is(err, context.Canceled) {
		t.Fatalf("second lock gives %v", err)
	}
}

// directories lists the directories in the cache, finished or not.
func directories(t *testing.T, c cache) []string {
	t.Helper()
	var dirs []string
	entries, err := os.ReadDir(c.dir)
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() {
			dirs = append(dirs, filepath.Join(c.dir, entry.Name()))
		}
	}
	return dirs
}
