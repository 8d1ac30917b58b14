package parts

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// key names a state of a part's inputs: the regular files directly in dir, if
// any, and facts such as flags and versions. Another key is another part.
func key(dir string, facts ...string) (string, error) {
	h := sha256.New()
	for _, fact := range facts {
		fmt.Fprintf(h, "fact %q\n", fact)
	}
	if dir != "" {
		if err := hashFiles(h, dir); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func hashFiles(w io.Writer, dir string) error {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "file %q %d\n", entry.Name(), len(content))
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return nil
}
