package checkpoint

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is the time since the node booted. It goes on while the node sleeps, and nobody
// sets it. The records do not outlive the boot.
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // no kernel that can mount a volume lacks it
	}
	return time.Duration(t.Nano())
}
