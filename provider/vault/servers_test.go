package vault

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/klog/v2"
)

// A cluster whose pods bring certificates of their own must not make the driver
// keep a transport for each pod that ever was.
func TestServersAreForgotten(t *testing.T) {
	t.Parallel()
	servers := NewServers(klog.Background(), time.Now)
	var used []*server
	for i := range 3 * keptIdle {
		s, err := servers.acquire(Endpoint{Address: "https://vault:8200", ServerName: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, s)
	}
	again, err := servers.acquire(used[0].endpoint)
	if err != nil || again != used[0] {
		t.Errorf("an endpoint in use was opened twice, %v", err)
	}
	for _, s := range used {
		servers.release(s)
	}
	if got := len(servers.open); got != keptIdle {
		t.Errorf("%d servers are kept, want %d", got, keptIdle)
	}
	if len(servers.gates) != 1 {
		t.Errorf("one address has %d gates", len(servers.gates))
	}
	servers.release(again)
}
