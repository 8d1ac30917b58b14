package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A cluster has one authority or two, and Kubernetes replaces their files.
func TestClusterAuthorities(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "ca.crt"), []byte("the authority"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(directory, "directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		directory, name, want string
		fails                 bool
	}{
		"there":          {directory, "ca.crt", "the authority", false},
		"not there":      {directory, "service-ca.crt", "", false},
		"not readable":   {directory, "directory", "", true},
		"none are given": {"", "ca.crt", "", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := vaultOptions{clusterCA: test.directory}
			got, err := options.readClusterCA(test.name)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
