package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/vaultmount/vaultmount/test/parts"
)

func TestReleaseIsOfTheCommit(t *testing.T) {
	root := repository(t)
	release, err := Of(t.Context(), root, "v1.0.0", "")
	require.NoError(t, err)
	if release.Created.Unix() != 1_600_000_000 || len(release.Revision) != 40 || release.Version != "v1.0.0" {
		t.Errorf("the release is %+v", release)
	}
	if release, err = Of(t.Context(), root, "v1.0.0", "1700000000"); err != nil || release.Created.Unix() != 1_700_000_000 {
		t.Errorf("with SOURCE_DATE_EPOCH it is %+v, %v", release, err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "more"), nil, 0o644))
	if release, err = Of(t.Context(), root, "v1.0.0", ""); err != nil || !strings.HasSuffix(release.Revision, "-dirty") {
		t.Errorf("with a file that no commit holds it is %+v, %v", release, err)
	}
}

func TestReleaseRefusesWhatItCannotName(t *testing.T) {
	root := repository(t)
	tests := map[string]struct{ root, version, epoch, want string }{
		"version":     {root, "v1+2", "", `version "v1+2" is no tag of an image; write for example v0.1.0`},
		"no version":  {root, "", "", `version "" is no tag of an image`},
		"epoch":       {root, "v1", "yesterday", `SOURCE_DATE_EPOCH "yesterday" is not a number of seconds since 1970`},
		"no checkout": {t.TempDir(), "v1", "", "find the commit to build: git log: fatal: not a git repository"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Of(t.Context(), test.root, test.version, test.epoch); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// repository has one commit.
func repository(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	script := `git init -q && git -c user.name=n -c user.email=e@example.com commit -q --allow-empty -m first`
	command := exec.CommandContext(t.Context(), "sh", "-c", script)
	command.Dir = root
	command.Env = append(os.Environ(), "GIT_COMMITTER_DATE=1600000000 +0000")
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("git: %v\n%s", err, output)
	}
	return root
}

// A container engine builds the image from other instructions, which must say the
// same.
func TestDockerfileAgrees(t *testing.T) {
	root, err := parts.Checkout()
	require.NoError(t, err)
	content, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	text := string(content)
	wanted := []string{"FROM scratch\n", "USER 65532:65532\n", `ENTRYPOINT ["/vaultmount"]`, sbomTool, " " + SBOMPath + "\n", "COPY --from=build /vaultmount /vaultmount\n", "-s -w -X main.version=$VERSION"}
	for label, value := range (Release{}).labels() {
		if value != "" && label != "org.opencontainers.image.created" {
			wanted = append(wanted, label+`="`+value+`"`)
			continue
		}
		wanted = append(wanted, label+"=")
	}
	for _, line := range wanted {
		if !strings.Contains(text, line) {
			t.Errorf("the Dockerfile lacks %s", line)
		}
	}
}
