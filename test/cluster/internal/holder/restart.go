package holder

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// restarts are the programs that may end without ending the cluster.
type restarts struct {
	mutex   sync.Mutex
	running map[string]int // process ids
	asked   map[string]chan struct{}
}

func newRestarts() *restarts {
	return &restarts{running: map[string]int{}, asked: map[string]chan struct{}{}}
}

// began notes that a program runs, and tells whoever waits for it.
func (r *restarts) began(name string, pid int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.running[name] = pid
	if done := r.asked[name]; done != nil {
		close(done)
		delete(r.asked, name)
	}
}

// take reports whether the end of a program was asked for. It no longer runs.
func (r *restarts) take(name string) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	delete(r.running, name)
	return r.asked[name] != nil
}

// kill ends a program as a crash does; done is closed when it runs again.
func (r *restarts) kill(name string) (done <-chan struct{}, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	pid := r.running[name]
	if pid == 0 || r.asked[name] != nil {
		return nil, fmt.Errorf("restart %s: it does not run", name)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return nil, fmt.Errorf("restart %s: %w", name, err)
	}
	again := make(chan struct{})
	r.asked[name] = again
	return again, nil
}

// restart returns when a program has been started again, which is before it is
// ready.
func (h *holder) restart(ctx context.Context, name string) error {
	done, err := h.restarts.kill(name)
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("restart %s: %w", name, context.Cause(ctx))
	}
}
