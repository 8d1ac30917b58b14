package canary

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	t.Parallel()
	canaries := Canaries{"the password": "s3cr3t-value"}
	tests := map[string]struct {
		text string
		want []string
	}{
		"nothing":         {"a line about default/pod", nil},
		"a planted value": {"password is s3cr3t-value.", []string{"the password"}},
		"a Vault token":   {`token="hvs.CAESIJ0123456789"`, []string{"a Vault token"}},
		"a batch token":   {"hvb.AAAAAQIDBAUGBwgJ", []string{"a Vault token"}},
		"a JWT":           {"Bearer eyJhbGciOiJFUzI1NiJ9.x.y", []string{"a service-account token"}},
		"all":             {"s3cr3t-value eyJhbGciOiJFUzI1NiJ9 hvs.CAESIJ0123456789", []string{"the password", "a Vault token", "a service-account token"}},
	}
	for name, test := range tests {
		if got := canaries.Find(test.text); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestRequireNoneBelow(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	kept := filepath.Join(directory, "state")
	require.NoError(t, os.Mkdir(kept, 0o700))
	for path, content := range map[string]string{"state/record": "s3cr3t-value", "vol_data.json": "{}"} {
		require.NoError(t, os.WriteFile(filepath.Join(directory, path), []byte(content), 0o600))
	}
	if got := (Canaries{"the password": "s3cr3t-value"}).RequireNoneBelow(t, directory, kept); got != 2 {
		t.Errorf("%d files were read, want 2", got)
	}
}
