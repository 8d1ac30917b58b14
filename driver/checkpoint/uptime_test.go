package checkpoint

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// The kernel's own account of the same clock is in hundredths of a second.
func TestUptime(t *testing.T) {
	t.Parallel()
	before := kernelUptime(t)
	since := Uptime()
	after := kernelUptime(t)
	if since < before || since > after+10*time.Millisecond {
		t.Errorf("the node is up for %s; the kernel says %s to %s", since, before, after)
	}
	if later := Uptime(); later < since {
		t.Errorf("the node is up for %s, then for %s", since, later)
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
