// Package checkpoint keeps what the driver must know of its volumes when it starts
// again: one record a file, in a tmpfs beside the CSI socket that only root may
// look into. So it is in the same memory as the volumes, and lives exactly as
// long as they do: it outlives the process, and goes with a reboot as they go.
//
// It knows nothing of what the records mean, and it is never visible to a pod.
package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/vaultmount/vaultmount/provider/limits"
)

// Size limits the state of a node in bytes: a few records of a page or two for each
// volume. Records is for all records but the reserved ones. The rest is the reserve, and
// what a record takes while it is written beside the one that it replaces.
const (
	Size    = 64 << 20
	Records = 40 << 20
	Reserve = 8 << 20
)

// Reserved is how the keys of records start that may use the reserve: they are of tokens
// that nobody knows any more once their record is lost.
const Reserved = "revocation-"

// ErrFull is a state that takes no record of this size. The records that it has stay.
var ErrFull = errors.New("the state of the node is full; have fewer or smaller secrets in the pods of this node")

// Mount is the memory that the records are in. See tmpfs.StateMount.
type Mount interface {
	// Root is the directory of the records. After an unmount it stays in memory, and no
	// record is written to the disk beneath.
	Root() *os.Root
	// Close leaves it to the next process, or removes it.
	Close(remove bool) error
}

// Store is a directory of records. It may be used concurrently for different
// records, until Close or Discard.
type Store struct {
	logger klog.Logger
	mount  Mount
	root   *os.Root

	// writing is held while a record is written: two large ones at once would need more
	// memory than there is.
	writing sync.Mutex

	mutex sync.Mutex
	sizes map[string]int64 // of records, in whole pages
	// normal and reserved are the sums of sizes, of the two kinds of record.
	normal, reserved int64
}

// temporary is the suffix of a record that is being written.
const temporary = ".new"

// Open returns the store in a tmpfs, which it closes at its own end and after an
// error. What an earlier process left half written is removed.
func Open(logger klog.Logger, mount Mount) (*Store, error) {
	s := &Store{logger: logger, mount: mount, root: mount.Root(), sizes: map[string]int64{}}
	if err := s.readSizes(); err != nil {
		return nil, errors.Join(err, mount.Close(false))
	}
	return s, nil
}

func (s *Store) readSizes() error {
	names, err := s.names("")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, temporary) {
			info, err := s.root.Lstat(name)
			if err != nil {
				return fmt.Errorf("look at a record: %w", err)
			}
			s.note(name, inPages(info.Size()))
			continue
		}
		if err := s.root.Remove(name); err != nil {
			return fmt.Errorf("remove a record that was not finished: %w", err)
		}
	}
	return nil
}

// Save replaces a record, as a whole or not at all. A process that is killed
// leaves the old one or the new one; nothing is synced, since memory that is lost
// takes the volumes along.
func (s *Store) Save(key string, record []byte) error {
	if err := check(key); err != nil {
		return err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	size := inPages(int64(len(record)))
	if err := s.fits(key, size); err != nil {
		return err
	}
	if err := s.root.WriteFile(key+temporary, record, 0o600); err != nil {
		return errors.Join(fmt.Errorf("write a record: %w", err), ignoreAbsent(s.root.Remove(key+temporary)))
	}
	if err := s.root.Rename(key+temporary, key); err != nil {
		return fmt.Errorf("put a record in place: %w", err)
	}
	s.note(key, size)
	return nil
}

// fits reports whether a record of a size may take the place of the one before.
func (s *Store) fits(key string, size int64) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	more := size - s.sizes[key]
	taken, most := s.normal, int64(Records)
	if strings.HasPrefix(key, Reserved) {
		taken, most = s.normal+s.reserved, Records+Reserve
	}
	if more > 0 && taken+more > most {
		return fmt.Errorf("%w: %d of %d bytes are taken, and the record needs %d more", ErrFull, taken, most, more)
	}
	return nil
}

// note changes the size of a record; 0 is none.
func (s *Store) note(key string, size int64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	sum := &s.normal
	if strings.HasPrefix(key, Reserved) {
		sum = &s.reserved
	}
	*sum += size - s.sizes[key]
	if s.sizes[key] = size; size == 0 {
		delete(s.sizes, key)
	}
}

// inPages is what a record takes: whole pages, and at least one with its inode.
func inPages(size int64) int64 {
	page := int64(os.Getpagesize())
	return max(1, (size+page-1)/page) * page
}

// Delete removes a record. It succeeds when there is none.
func (s *Store) Delete(key string) error {
	if err := check(key); err != nil {
		return err
	}
	if err := ignoreAbsent(s.root.Remove(key)); err != nil {
		return fmt.Errorf("remove a record: %w", err)
	}
	s.note(key, 0)
	return nil
}

// Close leaves the records to the next process.
func (s *Store) Close() error {
	if err := s.mount.Close(false); err != nil {
		return fmt.Errorf("close the state: %w", err)
	}
	return nil
}

// Discard is Close for a driver that may not start again: the tmpfs goes if it
// holds no record.
func (s *Store) Discard() error {
	names, err := s.names("")
	if err != nil || len(names) > 0 {
		return errors.Join(err, s.Close())
	}
	if err := s.mount.Close(true); err != nil {
		return fmt.Errorf("unmount the state: %w", err)
	}
	return nil
}

// Load returns the records whose keys start with prefix. It deletes those that are over
// the limit, with a log line, and does not read them. A whole key costs no listing.
func (s *Store) Load(prefix string) (map[string][]byte, error) {
	names := []string{prefix}
	if _, err := s.root.Lstat(cmp.Or(prefix, ".")); err != nil || prefix == "" {
		if names, err = s.names(prefix); err != nil {
			return nil, err
		}
	}
	records := map[string][]byte{}
	for _, name := range names {
		if strings.HasSuffix(name, temporary) {
			continue
		}
		if err := s.checkSize(name); err != nil {
			s.logger.Error(err, "Record dropped; its volume logs in again at its next republish", "record", name)
			if err := s.Delete(name); err != nil {
				return nil, err
			}
			continue
		}
		record, err := s.root.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("read a record: %w", err)
		}
		records[name] = record
	}
	return records, nil
}

func (s *Store) checkSize(name string) error {
	info, err := s.root.Lstat(name)
	if err != nil {
		return ignoreAbsent(err)
	}
	return limits.CheckpointBytes.Check(int(info.Size()))
}

func (s *Store) names(prefix string) ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list the state: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// check refuses what is not the key of a record. Keys are letters, digits and
// hyphens, so none leads elsewhere.
func check(key string) error {
	if key == "" || len(key) > longestKey || strings.ContainsFunc(key, isNotOfAKey) {
		return fmt.Errorf("%q is not the key of a record", key)
	}
	return nil
}

// longestKey is in bytes, and leaves space for the suffix in a file's name.
const longestKey = 200

func isNotOfAKey(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' }

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Uptime is the time since the node booted. It goes on while the node sleeps, and nobody
// sets it. The records do not outlive the boot.
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // no kernel that can mount a volume lacks it
	}
	return time.Duration(t.Nano())
}
