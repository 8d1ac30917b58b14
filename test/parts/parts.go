// Package parts makes what a test cluster is put together from: the Kubernetes
// programs, a Vault server, the pause program, and the container runtime, from
// the distribution's packages or from source. Each part is built once and kept
// in a cache outside the checkout. It never installs anything on the machine and
// never runs a part.
package parts

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
)

// Parts is where the parts of a test cluster are.
type Parts struct {
	Kubernetes string // directory of kube-apiserver, kubelet, kubectl and the others
	Vault      string // program
	Pause      string // program, static
	Runtime    Runtime
}

// Kubectl is the path of the kubectl program.
func (p *Parts) Kubectl() string { return filepath.Join(p.Kubernetes, "kubectl") }

// Build makes the parts the cache does not hold yet and tells how long that
// takes on progress. The source is that of the container runtime alone.
func Build(ctx context.Context, source Source, progress io.Writer) (*Parts, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return nil, err
	}
	var p Parts
	if p.Runtime, err = b.runtime(ctx, source); err != nil {
		return nil, fmt.Errorf("get container runtime: %w", err)
	}
	if p.Pause, err = b.pause(ctx); err != nil {
		return nil, fmt.Errorf("build pause: %w", err)
	}
	if p.Kubernetes, err = b.kubernetes(ctx); err != nil {
		return nil, fmt.Errorf("build kubernetes: %w", err)
	}
	if p.Vault, err = b.vault(ctx); err != nil {
		return nil, fmt.Errorf("build vault: %w", err)
	}
	return &p, nil
}

// Vault makes only the Vault server, for tests that need no cluster, and
// returns the path of the program.
func Vault(ctx context.Context, progress io.Writer) (string, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return "", err
	}
	path, err := b.vault(ctx)
	if err != nil {
		return "", fmt.Errorf("build vault: %w", err)
	}
	return path, nil
}

// Helm makes only Helm, for tests of the chart, and returns the path of the
// program.
func Helm(ctx context.Context, progress io.Writer) (string, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return "", err
	}
	path, err := b.helm(ctx)
	if err != nil {
		return "", fmt.Errorf("build helm: %w", err)
	}
	return path, nil
}

// APITypes makes the program that decodes objects by the API types of one Kubernetes
// version, such as 1.30, and returns its path.
func APITypes(ctx context.Context, version string, progress io.Writer) (string, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return "", err
	}
	path, err := b.apiTypes(ctx, version)
	if err != nil {
		return "", fmt.Errorf("build the API types of Kubernetes %s: %w", version, err)
	}
	return path, nil
}

// builder makes parts from the sources in one checkout into one cache.
type builder struct {
	sources  string // directory of this package in the checkout
	cache    cache
	progress io.Writer
}

func newBuilder(progress io.Writer) (*builder, error) {
	dir, err := CacheDir()
	if err != nil {
		return nil, err
	}
	sources, err := findSources()
	if err != nil {
		return nil, err
	}
	return &builder{
		sources:  sources,
		cache:    cache{dir: filepath.Join(dir, "parts"), progress: progress},
		progress: progress,
	}, nil
}
