package checkpoint

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// The kernel's own account of the same clock is in hundredths of a second.
func TestBootIsHowLongTheNodeIsUp(t *testing.T) {
	t.Parallel()
	boot, err := CurrentBoot()
	if err != nil {
		t.Fatal(err)
	}
	before := kernelUptime(t)
	id, since := boot.Up()
	after := kernelUptime(t)
	if since < before || since > after+10*time.Millisecond {
		t.Errorf("the node is up for %s; the kernel says %s to %s", since, before, after)
	}
	other, err := CurrentBoot()
	if err != nil {
		t.Fatal(err)
	}
	if again, later := other.Up(); id == "" || again != id || later < since {
		t.Errorf("boot %q is up for %s, then boot %q for %s", id, since, again, later)
	}
}

func kernelUptime(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	var seconds, hundredths int64
	if _, err := fmt.Sscanf(string(text), "%d.%d", &seconds, &hundredths); err != nil {
		t.Fatal(err)
	}
	return time.Duration(seconds)*time.Second + time.Duration(hundredths)*10*time.Millisecond
}
