package volumes

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/vaultmount/vaultmount/driver/tmpfs"
	"github.com/vaultmount/vaultmount/provider"
	"github.com/vaultmount/vaultmount/provider/limits"
)

func TestPayloadTakesInWhatTemplatesWrite(t *testing.T) {
	t.Parallel()
	volume := Volume{UID: 5, GID: 6, Files: []File{{Path: "a", Perms: 0o640}, {Path: "b", Perms: 0o644}}}
	payload, err := volume.payload([]provider.RenderedFile{
		{Content: []byte("1"), Written: []provider.WrittenFile{{Path: "key", Content: []byte("k"), UID: 100, GID: -1, Perms: 0o400}}},
		{Content: []byte("2"), Written: []provider.WrittenFile{{Path: "c/d", Content: []byte("d"), UID: -1, GID: -1, Perms: 0o7644}}},
	})
	want := tmpfs.Payload{
		{Path: "a", Content: []byte("1"), Perms: 0o640, UID: 5, GID: 6},
		{Path: "b", Content: []byte("2"), Perms: 0o644, UID: 5, GID: 6},
		{Path: "key", Content: []byte("k"), Perms: 0o400, UID: 100, GID: 6},
		{Path: "c/d", Content: []byte("d"), Perms: 0o644, UID: 5, GID: 6},
	}
	if err != nil || !reflect.DeepEqual(payload, want) {
		t.Errorf("got %+v, %v", payload, err)
	}
}

func TestPayloadRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		first, second []string // paths that the templates of "a/b" and "c" write
		want          string
	}{
		"the file of an attribute":       {[]string{"c"}, nil, `writeToFile in "a/b" and the attribute of "c" make the same file "c"`},
		"its own file":                   {[]string{"a/b"}, nil, `make the same file "a/b"`},
		"the same file twice":            {[]string{"x"}, []string{"x"}, `writeToFile in "c" and writeToFile in "a/b" make the same file "x"`},
		"a directory as a file":          {[]string{"a"}, nil, `one of which would have to be a directory`},
		"a file as a directory":          {nil, []string{"c/x"}, `one of which would have to be a directory`},
		"a path that no renderer allows": {[]string{"../x"}, nil, `no part of a file name may start with ".."`},
		"an absolute path":               {[]string{"/etc/passwd"}, nil, `must be relative to the volume`},
	}
	volume := Volume{Files: []File{{Path: "a/b"}, {Path: "c"}}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := volume.payload([]provider.RenderedFile{{Written: written(test.first)}, {Written: written(test.second)}})
			if !errors.Is(err, provider.ErrTemplate) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func written(paths []string) []provider.WrittenFile {
	var files []provider.WrittenFile
	for _, path := range paths {
		files = append(files, provider.WrittenFile{Path: path})
	}
	return files
}

// Directories cost kernel memory, and the check of many files must not take longer than
// their paths are.
func TestPayloadIsLimited(t *testing.T) {
	t.Parallel()
	files, directories := limits.Files.Max(), limits.Directories.Max()
	deep := func(depth int) string { return strings.Repeat("d/", depth) + "f" }
	tests := map[string]struct {
		paths []string
		want  string // empty for no error
	}{
		"as many files as may be":       {numbered("f%d", files-1), ""}, // and one of an attribute
		"one file more":                 {numbered("f%d", files), "(files)"},
		"as many directories as may be": {append(numbered("d%d/f", directories/2), numbered("e/d%d/f", directories/2-1)...)[:directories-1], ""},
		"one directory more":            {append(numbered("d%d/f", directories/2), numbered("e/d%d/e/f", directories/4)...), "(directories)"},
		"as deep as may be":             {[]string{deep(limits.DirectoryDepth.Max())}, ""},
		"one level deeper":              {[]string{deep(limits.DirectoryDepth.Max() + 1)}, "(directory-depth)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Volume{Files: []File{{Path: "a"}}}.payload([]provider.RenderedFile{{Written: written(test.paths)}})
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, provider.ErrTemplate) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func numbered(format string, count int) []string {
	var paths []string
	for i := range count {
		paths = append(paths, fmt.Sprintf(format, i))
	}
	return paths
}
