package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/cgroup"
	"github.com/vaultmount/vaultmount/test/cluster/internal/holder"
	"github.com/vaultmount/vaultmount/test/cluster/internal/process"
)

// waitTimeout is how long the holder gets to end the cluster itself.
const waitTimeout = 20 * time.Second

// Down ends the cluster of a run directory, whoever brought it up, and removes
// the directory. It returns when nothing is left; without a cluster, at once.
func Down(ctx context.Context, runDir string) error {
	if err := down(ctx, runDir); err != nil {
		return fmt.Errorf("take down cluster: %w", err)
	}
	return nil
}

func down(ctx context.Context, runDir string) error {
	runDir, err := resolveRunDir(runDir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(runDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := readState(runDir)
	if err == nil {
		err = endHolder(ctx, s.Holder)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := cleanUp(ctx, runDir); err != nil {
		return err
	}
	err = os.Remove(runDir)
	if errors.Is(err, unix.ENOTEMPTY) {
		return nil // files that are not the cluster's
	}
	return err
}

// endHolder asks the holder to end the cluster and kills it if it does not:
// then the kernel ends all processes and mounts, but the control group stays.
func endHolder(ctx context.Context, id process.ID) error {
	handle, err := id.Open()
	if errors.Is(err, process.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer handle.Close()
	if err := handle.Signal(unix.SIGTERM); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	if handle.Wait(waiting) == nil {
		return nil
	}
	if err := handle.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return handle.Wait(ctx)
}

// cleanUp removes what a cluster without a holder can have left. In the run
// directory it takes only what is the cluster's: the directory was named by a
// user.
func cleanUp(ctx context.Context, runDir string) error {
	group, err := cgroup.New(cgroupName(runDir))
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	errs := []error{
		group.Remove(bounded),
		os.RemoveAll(holder.Logs(runDir)),
		os.RemoveAll(filepath.Join(runDir, imageDir)),
		os.RemoveAll(filepath.Join(runDir, kubectlCache)),
	}
	for _, path := range []string{
		holder.Kubeconfig(runDir),
		holder.Socket(runDir),
		filepath.Join(runDir, stateFile),
		filepath.Join(runDir, stateFile+".new"),
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
