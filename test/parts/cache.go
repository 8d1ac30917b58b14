package parts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// CacheDir is the directory outside the checkout for everything that is costly
// to make: $VAULTMOUNT_CACHE, or vaultmount in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("VAULTMOUNT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache directory: %w", err)
	}
	return filepath.Join(dir, "vaultmount"), nil
}

// cache keeps one directory per part and key.
type cache struct {
	dir      string
	progress io.Writer
}

// get returns the directory of a part. If it is not there, make fills a
// temporary directory, which takes the part's name only when it is complete.
func (c cache) get(ctx context.Context, part, key string, make func(ctx context.Context, dir string) error) (string, error) {
	dir := filepath.Join(c.dir, part+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := c.lock(ctx, part)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // another process made it while this one waited for the lock
	}
	if err := c.cleanUp(part); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(c.dir, unfinished(part))
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), make(ctx, tmp)); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // what the killed command says tells nothing
		}
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return dir, nil
}

// cleanUp removes what interrupted builds of a part left; its lock must be held.
func (c cache) cleanUp(part string) error {
	left, err := filepath.Glob(filepath.Join(c.dir, unfinished(part)))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// unfinished is the pattern of the names of unfinished directories of a part.
func unfinished(part string) string { return ".unfinished-" + part + "-*" }

// lock keeps other processes from making the part meanwhile. The kernel drops
// the lock with the process, so that a killed build holds up nobody.
func (c cache) lock(ctx context.Context, part string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, part+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = tryLock(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = c.awaitLock(ctx, part, f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// awaitLock polls, as no context can bound flock(2) itself.
func (c cache) awaitLock(ctx context.Context, part string, f *os.File) error {
	defer startProgress(c.progress, "waiting for another process to build "+part)()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := tryLock(f); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
	}
}

func tryLock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// key names a state of a part's inputs: the regular files directly in dir, if
// any, and facts such as flags and versions. Another key is another part.
func key(dir string, facts ...string) (string, error) {
	h := sha256.New()
	for _, fact := range facts {
		fmt.Fprintf(h, "fact %q\n", fact)
	}
	if dir != "" {
		if err := hashFiles(h, dir); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

func hashFiles(w io.Writer, dir string) error {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "file %q %d\n", entry.Name(), len(content))
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return nil
}
