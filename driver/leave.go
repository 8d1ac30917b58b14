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
	defer time.AfterFunc(replaceAfter, t.replace).Stop()
	draining, cancel := context.WithTimeout(context.Background(), replaceAfter)
	defer cancel()
	for _, each := range t.sockets {
		if each.path == t.plugin.endpoint {
			each.drain(draining)
		}
	}
	t.node.GracefulStop()
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
		t.node.GracefulStop()
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
