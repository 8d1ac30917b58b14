package checkpoint

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Boot is the boot of the node that a state belongs to, and the clock that starts
// with it. It may be used concurrently.
type Boot struct {
	id string
}

// CurrentBoot returns the boot of the node that this process runs on.
func CurrentBoot() (Boot, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Boot{}, fmt.Errorf("read which boot of the node this is: %w", err)
	}
	return Boot{id: strings.TrimSpace(string(id))}, nil
}

// Up returns the id of the boot, and the time since. That goes on while the node
// sleeps, and nobody can set it. The id is empty where the kernel does not tell
// the time.
func (b Boot) Up() (id string, since time.Duration) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return "", 0
	}
	return b.id, time.Duration(t.Nano())
}
