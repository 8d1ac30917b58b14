package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vaultmount/vaultmount/test/cluster/internal/holder"
)

// Up brings a cluster up and returns when its node is ready. The cluster ends
// with the calling process, unless Keep is called. If ctx ends before the node
// is ready, so does the cluster.
func Up(ctx context.Context, options Options) (*Cluster, error) {
	c, err := up(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("bring up cluster: %w", err)
	}
	return c, nil
}

func up(ctx context.Context, options Options) (*Cluster, error) {
	options, err := options.complete()
	if err != nil {
		return nil, err
	}
	unclaim, err := claim(ctx, options.RunDir)
	if err != nil {
		return nil, err
	}
	defer unclaim()
	c, reports, err := launch(options)
	if err != nil {
		return nil, err
	}
	defer reports.Close()
	if err := follow(ctx, reports, options.Progress); err != nil {
		// The end is not to be cut short by what may have caused it.
		return nil, errors.Join(err, c.end(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// complete fills in what Options leave out, and refuses what cannot work.
func (o Options) complete() (Options, error) {
	if os.Geteuid() != 0 {
		return o, errors.New("it takes root: namespaces, mounts and control groups are made")
	}
	if o.Parts == nil {
		return o, errors.New("options name no parts")
	}
	if o.SyncFrequency == 0 {
		o.SyncFrequency = 5 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	runDir, err := resolveRunDir(o.RunDir)
	if err != nil {
		return o, err
	}
	o.RunDir = runDir
	// A socket's address ends after 108 bytes, the last of them zero.
	if socket := holder.Socket(runDir); len(socket) > 107 {
		return o, fmt.Errorf("run directory's name is too long for a socket in it: %s", socket)
	}
	for _, path := range []string{runDir, o.Parts.Kubernetes, o.Parts.Runtime.Root} {
		if err := visible(path); err != nil {
			return o, err
		}
	}
	return o, nil
}

// visible refuses a path that the cluster's own mounts would cover.
func visible(path string) error {
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, hidden := range holder.Hidden() {
		if slices.ContainsFunc([]string{path, real + "/"}, func(p string) bool { return strings.HasPrefix(p, hidden+"/") }) {
			return fmt.Errorf("%s is not visible inside the cluster, which has a %s of its own", path, hidden)
		}
	}
	return nil
}

// follow tells the progress of the holder until the node is ready. The reports
// end with the holder.
func follow(ctx context.Context, reports *os.File, progress io.Writer) error {
	defer context.AfterFunc(ctx, func() { _ = reports.SetReadDeadline(time.Now()) })()
	begin := time.Now()
	decoder := json.NewDecoder(reports)
	for {
		var report holder.Report
		if err := decoder.Decode(&report); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("the holder ended without a word: %w", err)
		}
		switch {
		case report.Error != "":
			return errors.New(report.Error)
		case report.Ready:
			fmt.Fprintf(progress, "%6.2f s  ready\n", time.Since(begin).Seconds())
			return nil
		}
		fmt.Fprintf(progress, "%6.2f s  %s\n", time.Since(begin).Seconds(), report.Stage)
	}
}
