package parts

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// The folders of these parts hold a go.mod that names the version, and nothing else.

// runc is linked with libseccomp for good: so it needs no library where it runs.
func (b *builder) runc(ctx context.Context, include, libraries string) (string, error) {
	if _, err := exec.LookPath("gcc"); err != nil {
		return "", fmt.Errorf("gcc is missing, and runc is written in C too: install gcc and libc6-dev by apt-get: %w", err)
	}
	const module = "github.com/opencontainers/runc"
	version, err := required(filepath.Join(b.sources, "runc", "go.mod"), module)
	if err != nil {
		return "", err
	}
	return b.program(ctx, program{
		name:  "runc",
		title: fmt.Sprintf("runc %s (about 30 s on 2 cores)", strings.TrimPrefix(version, "v")),
		flags: []string{"-tags=seccomp,netgo,osusergo", "-ldflags=-s -w -extldflags=-static"},
		env: []string{
			"CGO_ENABLED=1",
			"CGO_CFLAGS=-I" + include,
			"CGO_LDFLAGS=-L" + libraries + " -lseccomp",
			"PKG_CONFIG=true", // it would look where libseccomp is installed
		},
		packages: []string{module},
	})
}

// containerd returns the directory of containerd, its shim and ctr.
func (b *builder) containerd(ctx context.Context) (string, error) {
	const module = "github.com/containerd/containerd/v2"
	version, err := required(filepath.Join(b.sources, "containerd", "go.mod"), module)
	if err != nil {
		return "", err
	}
	binary, err := b.program(ctx, program{
		name:  "containerd",
		title: fmt.Sprintf("containerd %s (about 3 min on 2 cores)", strings.TrimPrefix(version, "v")),
		flags: []string{
			"-gcflags=all=-N -l", // as Kubernetes, whose build has compiled much of it
			"-ldflags=-s -w -X " + module + "/version.Version=" + version,
		},
		packages: []string{module + "/cmd/containerd", module + "/cmd/containerd-shim-runc-v2", module + "/cmd/ctr"},
	})
	return filepath.Dir(binary), err
}

func (b *builder) etcd(ctx context.Context) (string, error) {
	const module = "go.etcd.io/etcd/server/v3"
	version, err := required(filepath.Join(b.sources, "etcd", "go.mod"), module)
	if err != nil {
		return "", err
	}
	return b.program(ctx, program{
		name:     "etcd",
		title:    fmt.Sprintf("etcd %s (about 1 min on 2 cores)", strings.TrimPrefix(version, "v")),
		flags:    []string{"-gcflags=all=-N -l", "-ldflags=-s -w"},
		packages: []string{module},
	})
}

// cni returns the directory of the three network plugins that the cluster uses.
func (b *builder) cni(ctx context.Context) (string, error) {
	const module = "github.com/containernetworking/plugins"
	version, err := required(filepath.Join(b.sources, "cni", "go.mod"), module)
	if err != nil {
		return "", err
	}
	binary, err := b.program(ctx, program{
		name:     "cni",
		title:    fmt.Sprintf("network plugins %s (about 30 s on 2 cores)", strings.TrimPrefix(version, "v")),
		flags:    []string{"-gcflags=all=-N -l", "-ldflags=-s -w"},
		packages: []string{module + "/plugins/main/bridge", module + "/plugins/main/loopback", module + "/plugins/ipam/host-local"},
	})
	return filepath.Dir(binary), err
}
