package driver

import (
	"context"
	"errors"
	"time"
)

// successor is another process that has taken over.
type successor struct {
	gone <-chan struct{}
	end  func() // stops to listen to it
}

// handOver finishes what has begun, gives the volumes up, and leaves the old
// registration server running, by which the two processes are connected.
func (t *term) handOver() *successor {
	t.logger.Info("Handing over to another process of the driver")
	draining, cancel := context.WithTimeout(context.Background(), replaceAfter)
	defer cancel()
	for _, each := range t.sockets {
		if each.path == t.plugin.endpoint {
			each.drain(draining)
		}
	}
	stopWithin(t.node, replaceAfter, t.replace)
	if err := t.giveUp(replaceAfter, true); err != nil {
		t.logger.Error(err, "Volumes handed over; not all that belongs to them was given up")
	}
	t.handover.release(t.plugin.isRegistered())
	t.end()
	return &successor{gone: t.handover.gone, end: t.endAnnouncement}
}

// stop ends the term for good. Calls in progress are finished first.
func (t *term) stop() error {
	var withdrawn error
	if t.plugin.current() != nil {
		withdrawn = t.plugin.withdraw()
	}
	if t.node != nil {
		stopWithin(t.node, drainAfter, t.replace)
	}
	var removed []error
	for _, each := range t.sockets {
		removed = append(removed, each.remove())
	}
	given := t.giveUp(stopAfter, false)
	t.handover.release(false)
	t.end()
	t.endAnnouncement()
	return errors.Join(append(removed, withdrawn, given)...)
}

// stopWithin stops a server when the calls in progress are finished. It cancels those that
// take longer, and leaves those behind that do not end then: the process is about to end,
// or another one waits for the volumes.
func stopWithin(server interface{ GracefulStop() }, timeout time.Duration, cancel func()) {
	stopped := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(stopped)
	}()
	for _, wait := range []time.Duration{timeout, cancelAfter} {
		select {
		case <-stopped:
			return
		case <-time.After(wait):
			cancel()
		}
	}
}

// cancelAfter is what a call gets to end once it is cancelled.
const cancelAfter = 2 * time.Second

func (t *term) end() {
	t.status()
	t.serving.Wait()
	t.replace()
}

func (t *term) endAnnouncement() {
	if t.announcement != nil {
		t.announcement.Stop()
	}
	t.announcing.Wait()
}

// giveUp gives the charge of the volumes up, if this process has it.
func (t *term) giveUp(timeout time.Duration, takenOver bool) error {
	charge := t.plugin.current()
	if charge == nil {
		return nil
	}
	t.plugin.setCharge(nil)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return charge.Close(ctx, takenOver)
}
