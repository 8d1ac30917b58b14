package parts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// program is a part written in Go.
type program struct {
	name     string   // of the part, its folder in the checkout and its binary
	title    string   // for the progress line
	flags    []string // of go build
	env      []string // of go build
	packages []string // to build, if it is not the one in the folder; of several, each is a binary of its own name
}

// kubernetes returns a directory with a symbolic link for each Kubernetes
// program to the one binary that is all of them.
func (b *builder) kubernetes(ctx context.Context) (string, error) {
	version, err := required(filepath.Join(b.sources, "kubernetes", "go.mod"), "k8s.io/kubernetes")
	if err != nil {
		return "", err
	}
	binary, err := b.program(ctx, program{
		name:  "kubernetes",
		title: fmt.Sprintf("kubernetes %s (about 6 min on 2 cores)", strings.TrimPrefix(version, "v")),
		flags: []string{
			"-gcflags=all=-N -l", // compiling without optimisation takes half the time
			"-ldflags=" + kubernetesLinkFlags(version),
		},
	})
	return filepath.Dir(binary), err
}

// kubernetesLinkFlags stamps the version as Kubernetes' own release build does:
// the programs compare it with each other's.
func kubernetesLinkFlags(version string) string {
	const stamp = " -X k8s.io/component-base/version."
	major, minor, _ := strings.Cut(strings.TrimPrefix(semver.MajorMinor(version), "v"), ".")
	return "-s -w" + stamp + "gitVersion=" + version + stamp + "gitMajor=" + major + stamp + "gitMinor=" + minor
}

func kubernetesPrograms() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"}
}

func (b *builder) vault(ctx context.Context) (string, error) {
	version, err := required(filepath.Join(b.sources, "vault", "go.mod"), "github.com/hashicorp/vault")
	if err != nil {
		return "", err
	}
	return b.program(ctx, program{
		name:  "vault",
		title: fmt.Sprintf("vault %s (about 5 min on 2 cores)", strings.TrimPrefix(version, "v")),
		flags: []string{"-tags=minimal", "-ldflags=-s -w"},
	})
}

func (b *builder) pause(ctx context.Context) (string, error) {
	return b.program(ctx, program{name: "pause", title: "pause", flags: []string{"-ldflags=-s -w"}})
}

// helm is the program of Helm's own module: the folder holds a go.mod that names
// its version, and nothing else.
func (b *builder) helm(ctx context.Context) (string, error) {
	version, err := required(filepath.Join(b.sources, "helm", "go.mod"), "helm.sh/helm/v4")
	if err != nil {
		return "", err
	}
	return b.program(ctx, program{
		name:     "helm",
		title:    fmt.Sprintf("helm %s (about 2 min on 2 cores)", strings.TrimPrefix(version, "v")),
		flags:    []string{"-gcflags=all=-N -l", "-ldflags=-s -w"},
		packages: []string{"helm.sh/helm/v4/cmd/helm"},
	})
}

// apiTypes is the program that knows the API types of one Kubernetes version, such
// as 1.30.
func (b *builder) apiTypes(ctx context.Context, version string) (string, error) {
	source := filepath.Join(b.sources, "apitypes")
	newest, err := required(filepath.Join(source, "go.mod"), "k8s.io/api")
	if err != nil {
		return "", err
	}
	file := "v" + version + ".mod"
	if strings.HasPrefix(newest, "v0"+strings.TrimPrefix(version, "1")+".") {
		file = "go.mod"
	}
	if _, err := os.Stat(filepath.Join(source, file)); err != nil {
		return "", err
	}
	return b.program(ctx, program{
		name:  "apitypes",
		title: fmt.Sprintf("the API types of Kubernetes %s (about 20 s on 2 cores)", version),
		flags: []string{"-modfile=" + file, "-gcflags=all=-N -l", "-ldflags=-s -w"},
	})
}

// program returns the path of a Go program's binary, built if need be.
func (b *builder) program(ctx context.Context, p program) (string, error) {
	source := filepath.Join(b.sources, p.name)
	version, err := output(goCommand(ctx, source, "env", "GOVERSION", "GOARCH"))
	if err != nil {
		return "", err
	}
	k, err := key(source, slices.Concat(p.flags, p.env, p.packages, []string{version})...)
	if err != nil {
		return "", err
	}
	dir, err := b.cache.get(ctx, p.name, k, func(ctx context.Context, dir string) error {
		return b.build(ctx, p, source, dir)
	})
	return filepath.Join(dir, p.name), err
}

func (b *builder) build(ctx context.Context, p program, source, dir string) error {
	defer startProgress(b.progress, "building "+p.title)()
	// Without -buildvcs=false go asks git, which refuses a checkout owned by
	// another user, as it is under sudo.
	target, packages := filepath.Join(dir, p.name), p.packages
	switch len(packages) {
	case 0:
		packages = []string{"."}
	case 1:
	default:
		target = dir + "/"
	}
	cmd := goCommand(ctx, source, slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-o", target}, p.flags, packages)...)
	cmd.Env = append(cmd.Env, p.env...)
	if _, err := output(cmd); err != nil {
		return err
	}
	if p.name != "kubernetes" {
		return nil
	}
	for _, name := range kubernetesPrograms() {
		if err := os.Symlink(p.name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// goCommand runs go for the module in dir, whatever the caller's workspace.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	return cmd
}

// required returns the version of a module that a go.mod file requires.
func required(path, module string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	file, err := modfile.Parse(path, content, nil)
	if err != nil {
		return "", err
	}
	for _, r := range file.Require {
		if r.Mod.Path == module {
			return r.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("find version: %s does not require %s", path, module)
}
