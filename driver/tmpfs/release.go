package tmpfs

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Releases tells when the memory of volumes is free. An unmount frees it at once, unless a
// process of the node has a file of the volume open or another mount namespace holds the
// volume: then the kernel frees it when the last one lets go. It may be used concurrently.
type Releases struct {
	mutex sync.Mutex
	fd    int // of inotify
}

// NewReleases takes one inotify instance of the node.
func NewReleases() (*Releases, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the memory of volumes: %w", err)
	}
	return &Releases{fd: fd}, nil
}

// Watch begins to watch the volume at target, which it does not keep. The error is
// ErrUnmounted where there is none.
func (r *Releases) Watch(target string) (id int, err error) {
	fd, err := openVolume(target)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	// The kernel tells of the end of the file system whatever is asked for.
	id, err = unix.InotifyAddWatch(r.fd, fmt.Sprintf("/proc/self/fd/%d", fd), unix.IN_DELETE_SELF|unix.IN_ONLYDIR)
	if err != nil {
		return 0, fmt.Errorf("watch the memory of a volume: %w", err)
	}
	return id, nil
}

// Freed returns the ids of the volumes whose memory is free since the last call. After an
// overflow nobody knows: all is true then.
func (r *Releases) Freed() (ids []int, all bool) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	events := make([]byte, 64*unix.SizeofInotifyEvent)
	for {
		n, err := unix.Read(r.fd, events)
		if err != nil || n < unix.SizeofInotifyEvent {
			return ids, all
		}
		// No event has a name: it is of the directory itself.
		for event := events[:n]; len(event) >= unix.SizeofInotifyEvent; event = event[unix.SizeofInotifyEvent:] {
			id, mask := int32(binary.NativeEndian.Uint32(event)), binary.NativeEndian.Uint32(event[4:])
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				all = true
			case mask&unix.IN_IGNORED != 0:
				ids = append(ids, int(id))
			}
		}
	}
}

// Close ends all watches.
func (r *Releases) Close() {
	_ = unix.Close(r.fd) // which cannot fail for a descriptor that is ours
}
