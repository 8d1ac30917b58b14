package cluster

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Listen listens at an address inside the cluster, for a server of the caller's own
// that programs of the cluster are to reach: they have a network of their own.
func (c *Cluster) Listen(address string) (net.Listener, error) {
	type result struct {
		listener net.Listener
		err      error
	}
	results := make(chan result)
	go func() {
		// The thread ends with this goroutine, so that nothing else of the program runs
		// in that network. A socket stays in the one that it was made in.
		runtime.LockOSThread()
		listener, err := c.listenInside(address)
		results <- result{listener, err}
	}()
	got := <-results
	if got.err != nil {
		return nil, fmt.Errorf("listen in cluster: %w", got.err)
	}
	return got.listener, nil
}

func (c *Cluster) listenInside(address string) (net.Listener, error) {
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.holder.PID))
	if err != nil {
		return nil, err
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter its network: %w", err)
	}
	return net.Listen("tcp", address)
}
