// Package holder is the inside of a cluster: process 1 of its PID namespace,
// which makes the mounts and the network, runs the programs of Kubernetes as its
// children, and ends them all when it is told to or its leash breaks. It never
// changes anything outside its namespaces but the run directory and one control
// group.
package holder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vaultmount/vaultmount/test/cluster/internal/cgroup"
)

// errEnd is the cause of an end that was asked for.
var errEnd = errors.New("asked to end")

// Main is the whole life of the holder; it returns its exit status.
func Main() int {
	in, err := inheritedFiles()
	if err != nil {
		report(in.report, Report{Error: err.Error()})
		return 1
	}
	ctx, end := context.WithCancelCause(context.Background())
	h := &holder{inherited: in, children: newChildren(), restarts: newRestarts(), end: end}
	stop := h.watch()
	err = errors.Join(h.run(ctx), h.tearDown())
	stop()
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	report(in.report, Report{Error: err.Error()})
	return 1
}

type holder struct {
	*inherited
	children *children
	restarts *restarts
	group    cgroup.Group
	end      context.CancelCauseFunc // ends the cluster, for a reason
	wg       sync.WaitGroup          // of all goroutines that end with the cluster
	closers  []func() error          // end those that only wait for connections
}

// run brings the cluster up and returns when it is to end: nil if that was
// asked for.
func (h *holder) run(ctx context.Context) error {
	late := time.AfterFunc(h.Timeout, func() { h.end(fmt.Errorf("not ready after %s", h.Timeout)) })
	err := h.bringUp(ctx)
	if late.Stop() && err == nil {
		report(h.report, Report{Ready: true})
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

// watch ends the cluster on SIGTERM and when the leash breaks.
func (h *holder) watch() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range signals {
			h.end(errEnd)
		}
	})
	wg.Go(func() {
		if n, _ := h.leash.Read(make([]byte, 1)); n == 0 {
			h.end(errEnd)
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		_ = h.leash.Close() // ends the read
		wg.Wait()
	}
}

// tearDown ends every process of the PID namespace and removes the control
// group. Mounts, network and the file system with all state need no removal:
// they exist only in namespaces that go with the holder.
func (h *holder) tearDown() error {
	h.end(errEnd)
	var errs []error
	for _, closeOne := range h.closers {
		errs = append(errs, closeOne())
	}
	errs = append(errs, h.children.killAll())
	h.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	errs = append(errs, h.group.Remove(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tear down: %w", err)
	}
	return nil
}

// report tells the process that brings the cluster up. It may have left, and
// then nobody is to be told.
func report(to *os.File, r Report) {
	_ = json.NewEncoder(to).Encode(r)
}
