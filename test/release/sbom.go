package release

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// sbomTool reads what the Go linker wrote into a program: the modules that are
// linked, and no others. The Dockerfile runs the same.
const sbomTool = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0"

// writeSBOM lists what is linked into a program, with the standard library, in
// CycloneDX's JSON. It holds no time and no random number.
func writeSBOM(ctx context.Context, program, version, path string) error {
	// The tool writes its own digest down, so it is built alike in all directories.
	command := exec.CommandContext(ctx, "go", "run", "-trimpath", sbomTool,
		"bin", "-json", "-std", "-noserial", "-notimestamp", "-version", version, "-output", path, program)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("list the modules of %s: %w\n%s", program, err, strings.TrimSpace(string(output)))
	}
	return nil
}
