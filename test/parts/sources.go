package parts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// findSources returns this package's directory in the checkout that holds the
// working directory. The sources cannot travel inside the program: go:embed
// leaves out directories that are modules of their own.
func findSources() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find sources: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		for _, candidate := range []string{filepath.Join(dir, "parts"), filepath.Join(dir, "test", "parts")} {
			_, err := os.Stat(filepath.Join(candidate, "kubernetes", "go.mod"))
			if err == nil {
				return candidate, nil
			}
			if !errors.Is(err, os.ErrNotExist) {
				return "", fmt.Errorf("find sources: %w", err)
			}
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find sources: %s is in no checkout of vaultmount", wd)
		}
	}
}
