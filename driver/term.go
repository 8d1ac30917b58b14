package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/vaultmount/vaultmount/driver/monitor"
)

const (
	// replaceAfter is what calls, and what runs in the background, get to finish when
	// another process takes over: its pods wait meanwhile. The kubelet repeats a call
	// that was cut short, and finds the other process.
	replaceAfter = 2 * time.Second
	// stopAfter is what runs in the background gets when nobody takes over; what is
	// left of it is the next process's.
	stopAfter = 10 * time.Second
	// chargeAfter is how long to wait for a process that is about to end.
	chargeAfter = 5 * time.Second
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
	t := &term{plugin: p, logger: klog.FromContext(ctx), handover: newHandover(), failed: make(chan error, 3), status: func() {}}
	t.replaced, t.replace = context.WithCancel(context.Background())
	return t
}

// startTerm is for a process that starts. Beside one that runs it puts its sockets
// in the place of that one's and then asks for the volumes; calls wait until they
// are handed over. Where none runs, it does not touch the sockets before it has the
// charge: they may be those of a process that hangs.
func (p *Plugin) startTerm(ctx context.Context, t *term) error {
	previous, err := findPredecessor(p.registrationSocket())
	if err != nil {
		return err
	}
	if previous == nil {
		if err := p.takeCharge(ctx); err != nil {
			return err
		}
		if err := t.serve(); err != nil {
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
	if err := p.takeCharge(ctx); err != nil {
		return err
	}
	if registered {
		p.setRegistered(true)
	}
	return p.keepAnnounced()
}

// resumeTerm is for a process that takes the volumes back. The kubelet knows the
// driver as before: by the same link.
func (p *Plugin) resumeTerm(ctx context.Context, t *term) error {
	if err := p.takeCharge(ctx); err != nil {
		return err
	}
	if err := t.serve(); err != nil {
		return err
	}
	return p.keepAnnounced()
}

func (p *Plugin) takeCharge(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, chargeAfter)
	defer cancel()
	charge, err := p.open(waiting)
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
	err := begin(ctx, t)
	if err != nil {
		return nil, errors.Join(err, t.stop())
	}
	p.setStandby(false)
	sweeping, stopSweeping := context.WithCancel(ctx)
	defer stopSweeping()
	driver := p.current().Driver
	t.serving.Go(func() { driver.sweepUntil(sweeping) })
	select {
	case <-ctx.Done():
		stopSweeping()
		return nil, t.stop()
	case err := <-t.failed:
		stopSweeping()
		return nil, errors.Join(err, t.stop())
	case <-t.handover.asked:
		stopSweeping()
		p.setStandby(true)
		return t.handOver(), nil
	}
}

// successor is another process that has taken over.
type successor struct {
	gone <-chan struct{}
	end  func() // stops to listen to it
}

// handOver finishes what has begun, gives the volumes up, and leaves the old
// registration server running, by which the two processes are connected.
func (t *term) handOver() *successor {
	defer time.AfterFunc(replaceAfter, t.replace).Stop()
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

// serve puts the sockets in place. The kubelet calls CSI as soon as it finds the
// registration, so that comes second.
func (t *term) serve() error {
	p := t.plugin
	t.node = grpc.NewServer(grpc.ChainUnaryInterceptor(logCalls(t.logger, p.observer), t.bound), grpc.WaitForHandlers(true))
	csi.RegisterIdentityServer(t.node, p)
	csi.RegisterNodeServer(t.node, p)
	t.announcement = grpc.NewServer()
	registration.RegisterRegistrationServer(t.announcement, &registrar{plugin: p, logger: t.logger})
	t.handover.register(t.announcement)
	if err := t.serveOn(&t.serving, p.endpoint, t.node.Serve); err != nil {
		return err
	}
	if err := t.serveOn(&t.announcing, p.registrationSocket(), t.announcement.Serve); err != nil {
		return err
	}
	status, stop := context.WithCancel(klog.NewContext(context.Background(), t.logger))
	t.status = stop
	if err := t.serveOn(&t.serving, StatusSocket(p.config.KubeletRoot, p.config.Name), func(listener net.Listener) error {
		return monitor.Serve(status, listener, monitor.VolumeRoutes(p.Volumes))
	}); err != nil {
		return err
	}
	t.logger.Info("Serving", logDriver, p.config.Name, logSocket, p.endpoint)
	return nil
}

func (t *term) serveOn(group *sync.WaitGroup, path string, serve func(net.Listener) error) error {
	socket, err := listen(path)
	if err != nil {
		return err
	}
	t.sockets = append(t.sockets, socket)
	group.Go(func() {
		if err := serve(socket); err != nil {
			t.failed <- fmt.Errorf("serve on %s: %w", path, err)
		}
	})
	return nil
}

// bound ends calls that are still in progress some time after another process has
// taken over.
func (t *term) bound(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.replaced, func() { cancel(errReplaced) })()
	response, err := handle(ctx, request)
	if err != nil && errors.Is(context.Cause(ctx), errReplaced) {
		return nil, fmt.Errorf("%w: %w", errReplaced, err)
	}
	return response, err
}
