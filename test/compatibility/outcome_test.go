package compatibility

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// outcome is what a program made of a template: files, or a failure.
type outcome struct {
	// failure is why there are no files. Only whether there is one is compared.
	failure string
	files   map[string]file
}

type file struct {
	content  string
	mode     uint32
	uid, gid uint32
}

func (o outcome) describe() string {
	if o.failure != "" {
		return "fails: " + o.failure
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(o.files)) {
		f := o.files[name]
		lines = append(lines, fmt.Sprintf("%s %o %d:%d %q", name, f.mode, f.uid, f.gid, f.content))
	}
	return strings.Join(lines, "\n")
}

// equals compares to the byte, after what is new each time is taken out.
func (o outcome) equals(other outcome, normalise func(string) string) bool {
	if o.failure != "" || other.failure != "" {
		return o.failure != "" && other.failure != ""
	}
	return maps.EqualFunc(o.files, other.files, func(a, b file) bool {
		if normalise != nil {
			a.content, b.content = normalise(a.content), normalise(b.content)
		}
		return a == b
	})
}

// readFiles reads what is below a directory. Names that start with ".." belong to
// the atomic swap, and what they lead to is read through the links beside them.
func readFiles(t *testing.T, directory string) map[string]file {
	t.Helper()
	files := map[string]file{}
	entries, err := os.ReadDir(directory)
	require.NoError(t, err)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		top, err := filepath.EvalSymlinks(filepath.Join(directory, entry.Name()))
		require.NoError(t, err)
		err = filepath.WalkDir(top, func(path string, entry2 fs.DirEntry, err error) error {
			if err != nil || entry2.IsDir() {
				return err
			}
			files[entry.Name()+strings.TrimPrefix(path, top)], err = readFile(path)
			return err
		})
		require.NoError(t, err)
	}
	return files
}

func readFile(path string) (file, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return file{}, err
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return file{}, err
	}
	return file{string(content), stat.Mode & 0o7777, stat.Uid, stat.Gid}, nil
}
