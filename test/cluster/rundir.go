package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/holder"
	"github.com/vaultmount/vaultmount/test/cluster/internal/process"
	"github.com/vaultmount/vaultmount/test/parts"
)

const (
	stateFile    = "holder.json"
	imageDir     = "images"
	kubectlCache = "kubectl"
)

// state is what the run directory keeps of a cluster for other processes.
type state struct {
	Holder    process.ID
	Forwarded map[string]string
}

func (s state) write(runDir string) error {
	content, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	tmp := filepath.Join(runDir, stateFile+".new")
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return os.Rename(tmp, filepath.Join(runDir, stateFile))
}

func readState(runDir string) (state, error) {
	var s state
	content, err := os.ReadFile(filepath.Join(runDir, stateFile))
	if err != nil {
		return s, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(content, &s); err != nil {
		return s, fmt.Errorf("read state: %w", err)
	}
	return s, nil
}

// DefaultRunDir is the run directory of a cluster that nobody named another for.
func DefaultRunDir() (string, error) {
	cache, err := parts.CacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "run"), nil
}

func resolveRunDir(runDir string) (string, error) {
	if runDir == "" {
		return DefaultRunDir()
	}
	return filepath.Abs(runDir)
}

// cgroupName is the same for each cluster of a run directory, so that what a
// killed one left is found.
func cgroupName(runDir string) string {
	sum := sha256.Sum256([]byte(runDir))
	return "vaultmount-" + hex.EncodeToString(sum[:4])
}

// Open returns the cluster that another process brought up and kept.
func Open(runDir string) (*Cluster, error) {
	runDir, err := resolveRunDir(runDir)
	if err != nil {
		return nil, err
	}
	s, err := readState(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster is up at %s", runDir)
	}
	if err != nil {
		return nil, err
	}
	handle, err := s.Holder.Open()
	if errors.Is(err, process.ErrGone) {
		return nil, fmt.Errorf("the cluster at %s has ended; its logs are in %s", runDir, holder.Logs(runDir))
	}
	if err != nil {
		return nil, err
	}
	return &Cluster{runDir: runDir, forwarded: s.Forwarded, holder: s.Holder}, handle.Close()
}

// claim makes the run directory ready for a new cluster and keeps other callers
// of Up out until this one has written its state.
func claim(ctx context.Context, runDir string) (unclaim func(), err error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	dir, err := os.Open(runDir)
	if err != nil {
		return nil, fmt.Errorf("open run directory: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock run directory %s, where another cluster may be coming up: %w", runDir, err), dir.Close())
	}
	if err := renew(ctx, runDir); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return func() { _ = dir.Close() }, nil // with the descriptor goes the lock
}

// renew clears the run directory of a cluster that has ended, and refuses to
// touch one that is up.
func renew(ctx context.Context, runDir string) error {
	s, err := readState(runDir)
	if err == nil {
		handle, err := s.Holder.Open()
		if err == nil {
			return errors.Join(fmt.Errorf("one is up already at %s (process %d): end it with \"lab down --run-dir %s\"", runDir, s.Holder.PID, runDir), handle.Close())
		}
		if !errors.Is(err, process.ErrGone) {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := cleanUp(ctx, runDir); err != nil {
		return err
	}
	return errors.Join(os.Mkdir(holder.Logs(runDir), 0o755), os.Mkdir(filepath.Join(runDir, imageDir), 0o755))
}
