package driver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"k8s.io/klog/v2"
)

const (
	// replaceAfter is what calls, and what runs in the background, get to finish when
	// another process takes over: its pods wait meanwhile. The kubelet repeats a call
	// that was cut short, and finds the other process.
	replaceAfter = 2 * time.Second
	// stopAfter is what runs in the background gets when nobody takes over; what is
	// left of it is the next process's.
	stopAfter = 10 * time.Second
	// drainAfter is what calls get to finish when nobody takes over. It is a little less
	// than the kubelet waits for them.
	drainAfter = 115 * time.Second
)

// term is the time during which a process serves the kubelet.
type term struct {
	plugin   *Plugin
	logger   klog.Logger
	handover *handover
	// replaced ends when calls in progress have had their time.
	replaced context.Context
	replace  context.CancelFunc

	node, announcement *grpc.Server
	failed             chan error // of a server
	status             context.CancelFunc
	sockets            []*socket
	serving            sync.WaitGroup // all but the announcement, which outlives a hand-over
	announcing         sync.WaitGroup
}

func (p *Plugin) newTerm(ctx context.Context) *term {
	t := &term{plugin: p, logger: klog.FromContext(ctx), handover: newHandover(), failed: make(chan error, 1), status: func() {}}
	t.replaced, t.replace = context.WithCancel(context.Background())
	return t
}

// startTerm is for a process that starts. Beside one that runs it puts its sockets
// in the place of that one's and then asks for the volumes; calls wait until they
// are handed over. Where none runs, it does not touch the sockets before it has the
// lock: they may be those of a process that hangs. Calls are served before the volumes
// are restored, so that probes find the process alive for as long as that takes.
func (p *Plugin) startTerm(ctx context.Context, t *term) error {
	previous, err := findPredecessor(p.registrationSocket())
	if err != nil {
		return err
	}
	if previous == nil {
		if err := p.takeCharge(ctx, t.serve); err != nil {
			return err
		}
		return p.announce()
	}
	p.previous = previous
	if err := t.serve(); err != nil {
		return err
	}
	registered, err := previous.take(ctx)
	if err != nil {
		t.logger.Info("The process before has not handed the volumes over", "reason", err.Error())
	}
	if err := p.takeCharge(ctx, func() error { return nil }); err != nil {
		return err
	}
	if registered {
		p.setRegistered(true)
	}
	return p.keepAnnounced()
}

// resumeTerm is for a process that takes the volumes back.
func (p *Plugin) resumeTerm(ctx context.Context, t *term) error {
	if err := p.takeCharge(ctx, t.serve); err != nil {
		return err
	}
	return p.keepAnnounced()
}

// takeCharge opens the volumes of the node. It calls locked as soon as no other process
// has them.
func (p *Plugin) takeCharge(ctx context.Context, locked func() error) error {
	locked = sync.OnceValue(locked)
	charge, err := p.open(ctx, locked)
	if err == nil {
		err = locked()
	}
	if err != nil {
		return fmt.Errorf("take charge of the volumes: %w", err)
	}
	p.setCharge(charge)
	return nil
}

// serveTerm serves until ctx ends, which returns nil, or until another process
// takes over, which returns its side of the hand-over.
func (p *Plugin) serveTerm(ctx context.Context, begin func(context.Context, *term) error) (*successor, error) {
	t := p.newTerm(ctx)
	if err := begin(ctx, t); err != nil {
		// Calls may wait for a charge that does not come. The process before takes the
		// node back only when this one has ended.
		t.replace()
		if ctx.Err() != nil {
			err = nil // it was told to end while it started
		}
		return nil, errors.Join(err, t.stop())
	}
	p.setStandby(false)
	leave := t.tend(ctx)
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-t.failed:
	case <-t.handover.asked:
		leave()
		p.setStandby(true)
		return t.handOver(), nil
	}
	leave()
	return nil, errors.Join(failure, t.stop())
}

// tend does what nobody calls for, until it is left.
func (t *term) tend(ctx context.Context) (leave func()) {
	sweeping, stopSweeping := context.WithCancel(ctx)
	driver := t.plugin.current().Driver
	t.serving.Go(func() { driver.sweepUntil(sweeping) })
	guard := startGuard(t)
	return func() {
		stopSweeping()
		guard.stop()
	}
}
