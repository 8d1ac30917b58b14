package parts

import (
	"context"
	"fmt"
	"io"
)

// Prometheus is where a Prometheus server is.
type Prometheus struct {
	Server   string // program
	Promtool string // program that checks rules
}

// PrometheusServer takes a Prometheus server from the distribution's packages.
func PrometheusServer(ctx context.Context, progress io.Writer) (Prometheus, error) {
	b, err := newBuilder(progress)
	if err != nil {
		return Prometheus{}, err
	}
	names := []string{"prometheus"}
	// The programs need nothing but the C library.
	root, err := b.packages(ctx, "prometheus", names, func(ctx context.Context, dir string) error { return download(ctx, dir, names) })
	if err != nil {
		return Prometheus{}, fmt.Errorf("unpack prometheus: %w", err)
	}
	var p Prometheus
	if p.Server, err = find(root, "prometheus", programDirs()); err != nil {
		return Prometheus{}, err
	}
	p.Promtool, err = find(root, "promtool", programDirs())
	return p, err
}
